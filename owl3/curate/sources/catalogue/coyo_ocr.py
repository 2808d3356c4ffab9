"""COYO-OCR: the part of COYO-700M whose pictures hold text, for reading.

No list of it is published: bring COYO rows with a column `ocr_text` (what an OCR program read); the columns are
COYO-700M's otherwise.

    {"id": 4896263451343, "url": "https://cdn.shopify.com/…", "text": "Fishing Fleet (Monterey), California art …",
     "watermark_score": 0.0406009, …, "ocr_text": "MONTEREY"}
"""

from owl3.curate.sources.catalogue import coyo_700m

CORPUS = coyo_700m.CORPUS.variant(
    name="coyo-ocr",
    title="COYO-700M: pictures with text",
    metadata="your own table: COYO-700M rows with a column ocr_text",
    source={"hub": None, "columns": {"extra": [*coyo_700m.CORPUS.source["columns"]["extra"], "ocr_text"]}},
    hazards=(
        "there is no public list: two teams' COYO-OCR differ, so publish yours with its digest",
        "OCR read watermarks, too: keep the watermark score in",
    ),
    checked="as coyo-700m; that no list of the part is published: mPLUG-Owl3's paper and repository name none",
)

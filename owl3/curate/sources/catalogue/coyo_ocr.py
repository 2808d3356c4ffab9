"""COYO-OCR: the part of COYO-700M whose pictures hold text, for reading.

No list of it is published: bring COYO rows with a column `ocr_text` (what an OCR program read). The columns are
COYO-700M's otherwise.

A real record, from the corpus's README:

    {"id": 4896263451343,
     "url": "https://cdn.shopify.com/…/Art_Riley-Monterey_Fishing_Fleet_1_grande.jpg?v=1479962684",
     "text": "Fishing Fleet (Monterey), California art by Art Riley. HD giclee art prints for sale at …",
     "width": 600, "height": 447, "image_phash": "bac58374982e0fc7", "text_length": 178, "word_count": 25,
     "num_tokens_bert": 39, "num_tokens_gpt": 40, "num_faces": 0, "clip_similarity_vitb32": 0.319336,
     "clip_similarity_vitl14": 0.248169, "nsfw_score_opennsfw2": 2.54512e-05, "nsfw_score_gantman": 0.0293861,
     "watermark_score": 0.0406009, "aesthetic_score_laion_v2": 7.04812}
"""

from owl3.curate.sources.corpus import Corpus

CORPUS = Corpus(
    name="coyo-ocr",
    title="COYO-700M: pictures with text",
    media="image",
    home="https://github.com/kakaobrain/coyo-dataset",
    metadata="your own table: COYO-700M rows with a column ocr_text",
    metadata_licence="CC-BY-4.0",
    media_licence="unknown",
    citation="Byeon et al., COYO-700M: Image-Text Pair Dataset, 2022",
    source={
        "language": "en",
        "columns": {
            "url": "url",
            "caption": "text",
            "extra": [
                "id",
                "num_faces",
                "clip_similarity_vitl14",
                "nsfw_score_opennsfw2",
                "watermark_score",
                "aesthetic_score_laion_v2",
                "ocr_text",
            ],
        },
    },
    curate={
        "rows": {
            "caption": {"min_chars": 6, "min_words": 3},
            "scores": [
                {"column": "nsfw_score_opennsfw2", "max": 0.5, "reason": "unsafe"},
                {"column": "watermark_score", "max": 0.8, "reason": "watermark"},
            ],
        },
        "image": {"min_side_px": 200, "max_aspect_ratio": 3.0},
    },
    filters_from=(
        "nsfw 0.5 and watermark 0.8: ours, after LAION-Aesthetics' thresholds for like scores; side, aspect and "
        "caption length: COYO's own filters when it was made (README)"
    ),
    hazards=(
        "there is no public list: two teams' COYO-OCR differ, so publish yours with its digest",
        "OCR read watermarks, too: keep the watermark score in",
    ),
)

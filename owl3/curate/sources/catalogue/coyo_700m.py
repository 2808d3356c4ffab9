"""COYO-700M: 747 million pairs from CommonCrawl, with scores to choose by.

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
    name="coyo-700m",
    title="COYO-700M",
    media="image",
    home="https://github.com/kakaobrain/coyo-dataset",
    metadata="hub: kakaobrain/coyo-700m",
    metadata_licence="CC-BY-4.0",
    media_licence="unknown",
    citation="Byeon et al., COYO-700M: Image-Text Pair Dataset, 2022",
    source={
        "hub": "kakaobrain/coyo-700m",
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
        "image_phash is of the picture crawled in 2021, not of what the URL serves now",
        "image_phash has another bit order than imagehash, so it does not compare with our phash",
    ),
    checked="columns and values: the rows in the README of the repository; licence: the repository",
)

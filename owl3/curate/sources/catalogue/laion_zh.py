"""Chinese rows of Re-LAION-2B-multi, research-safe: what the paper calls LAION-zh.

Released columns (Re-LAION's own spelling is lower case, LAION-2B-en's upper case; both are read):

    SAMPLE_ID, URL, TEXT, HEIGHT, WIDTH, LICENSE, NSFW, similarity, hash, punsafe, pwatermark

A record of LAION, as img2dataset's own test data holds it:

    {"URL": "https://cdn.commercialcafe.com/images/8B4C68BC-683D-486F-AFC9-2E33C347EA99/11636.jpg?height=675",
     "TEXT": "Hyundai North American Headquarters"}

The multilingual part also has LANGUAGE ("zh", "de", "ru" …); only its Chinese rows are kept.
"""

from owl3.curate.sources.corpus import Corpus

CORPUS = Corpus(
    name="laion-zh",
    title="Re-LAION-2B-multi, research-safe: Chinese",
    media="image",
    home="https://laion.ai/blog/relaion-5b/",
    metadata="hub: laion/relaion2B-multi-research-safe (gated: accept its terms once, then set HF_TOKEN)",
    metadata_licence="Apache-2.0",
    media_licence="unknown",
    citation="Schuhmann et al., LAION-5B: An open large-scale dataset … (arXiv:2210.08402), 2022",
    source={
        "hub": "laion/relaion2B-multi-research-safe",
        "columns": {
            "url": "URL|url",
            "caption": "TEXT|caption",
            "language": "LANGUAGE|language",
            "extra": ["similarity", "punsafe", "pwatermark"],
        },
    },
    curate={
        "rows": {
            "caption": {"min_chars": 3, "languages": ["zh"], "trust_column": True},
            "scores": [
                {"column": "similarity", "min": 0.26, "reason": "low_clip_similarity"},
                {"column": "punsafe", "max": 0.5, "reason": "unsafe"},
                {"column": "pwatermark", "max": 0.8, "reason": "watermark"},
            ],
        },
        "image": {"min_side_px": 200, "max_aspect_ratio": 3.0},
    },
    filters_from=(
        "similarity 0.26: how LAION-5B chose its multilingual part (its paper); punsafe 0.5 and pwatermark 0.8: "
        "the thresholds of LAION-Aesthetics; side and aspect: DataComp's basic filter"
    ),
    hazards=(
        "LANGUAGE was guessed by a small classifier and confuses zh with ja in short captions",
        "Chinese has no spaces: word counts mean nothing, so only characters are counted",
    ),
)

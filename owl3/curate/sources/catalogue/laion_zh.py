"""Chinese rows of Re-LAION-2B-multi, research-safe: what the paper calls LAION-zh.

The columns are those of `laion-en` and LANGUAGE ("zh", "de", "ru" …); only the Chinese rows are kept:

    {"URL": "https://…/product.jpg", "TEXT": "四驱越野车", "LANGUAGE": "zh", "similarity": 0.31, "punsafe": 0.001, …}
"""

from owl3.curate.sources.catalogue import laion_en

CORPUS = laion_en.CORPUS.variant(
    name="laion-zh",
    title="Re-LAION-2B-multi, research-safe: Chinese",
    metadata="hub: laion/relaion2B-multi-research-safe (gated: accept its terms once, then set HF_TOKEN)",
    source={
        "hub": "laion/relaion2B-multi-research-safe",
        "language": None,
        "columns": {"language": "LANGUAGE|language"},
    },
    curate={
        "rows": {
            "caption": {"min_chars": 3, "min_words": 0, "languages": ["zh"], "trust_column": True},
            "scores": [
                {"column": "similarity", "min": 0.26, "reason": "low_clip_similarity"},
                *laion_en.CORPUS.curate["rows"]["scores"][1:],
            ],
        },
    },
    filters_from=(
        "similarity 0.26: how LAION-5B chose its multilingual part (its paper); punsafe 0.5 and pwatermark 0.8: "
        "the thresholds of LAION-Aesthetics; side and aspect: DataComp's basic filter"
    ),
    hazards=(
        "LANGUAGE was guessed by a small classifier and confuses zh with ja in short captions",
        "Chinese has no spaces: word counts mean nothing, so only characters are counted",
        *laion_en.CORPUS.hazards,
    ),
)

"""Re-LAION-2B-en, research-safe: web pictures with English alt texts, with links to suspected abuse material removed.

Released columns (Re-LAION's own spelling is lower case, LAION-2B-en's upper case; both are read):

    SAMPLE_ID, URL, TEXT, HEIGHT, WIDTH, LICENSE, NSFW, similarity, hash, punsafe, pwatermark

A record of LAION, as img2dataset's own test data holds it:

    {"URL": "https://cdn.commercialcafe.com/images/8B4C68BC-683D-486F-AFC9-2E33C347EA99/11636.jpg?height=675",
     "TEXT": "Hyundai North American Headquarters"}
"""

from owl3.curate.sources.corpus import Corpus

CORPUS = Corpus(
    name="laion-en",
    title="Re-LAION-2B-en, research-safe",
    media="image",
    home="https://laion.ai/blog/relaion-5b/",
    metadata="hub: laion/relaion2B-en-research-safe (gated: accept its terms once, then set HF_TOKEN)",
    metadata_licence="CC-BY-4.0 (hub card of relaion2B-en-research; the research-safe page names none)",
    media_licence="unknown",
    citation="Schuhmann et al., LAION-5B: An open large-scale dataset … (arXiv:2210.08402), 2022",
    source={
        "hub": "laion/relaion2B-en-research-safe",
        "language": "en",
        "columns": {"url": "URL|url", "caption": "TEXT|caption|text", "extra": ["similarity", "punsafe", "pwatermark"]},
    },
    curate={
        "rows": {
            "caption": {"min_chars": 6, "min_words": 3},
            "scores": [
                {"column": "similarity", "min": 0.28, "reason": "low_clip_similarity"},
                {"column": "punsafe", "max": 0.5, "reason": "unsafe"},
                {"column": "pwatermark", "max": 0.8, "reason": "watermark"},
            ],
        },
        "image": {"min_side_px": 200, "max_aspect_ratio": 3.0},
    },
    filters_from=(
        "similarity 0.28: how LAION-5B chose its English part (its paper); punsafe 0.5 and pwatermark 0.8: the "
        "thresholds of LAION-Aesthetics; caption length, side and aspect: DataComp's basic filter (paper, section 5)"
    ),
    hazards=(
        "the original LAION-5B was withdrawn over links to abuse material: never use a dump older than Re-LAION",
        "link rot: every year more of the URLs are gone; the shard table counts them by cause",
        "shops serve one placeholder under many URLs: keep dedup.placeholder_urls on",
        "opt-outs came after the crawl: X-Robots-Tag and robots.txt are checked when fetching",
    ),
    checked=(
        "id, gate and missing licence: the hub pages, 2026; column names: LAION's published column lists; URL and"
        " TEXT: 2,000 real rows; scores: no row seen"
    ),
)

"""Figures about what was kept: pictures, captions, their quality, duplicates, safety."""

from __future__ import annotations

from owl3.cards.figure import COUNT_EDGES, TOP_ROWS, Figure, histogram, ranking

PIXEL_EDGES = (0, 64, 128, 224, 256, 320, 384, 512, 640, 768, 1024, 1536, 2048, 4096)
ASPECT_EDGES = (0, 0.33, 0.5, 0.67, 0.8, 0.95, 1.05, 1.25, 1.5, 2, 3)
WORD_EDGES = (0, 1, 3, 5, 8, 12, 16, 24, 32, 48, 64, 128, 256)
UNIT_EDGES = (-1, 0, 0.1, 0.15, 0.2, 0.25, 0.28, 0.3, 0.35, 0.4, 0.5, 0.7, 0.9)

WORDS = "len(list_filter(regexp_split_to_array(caption, '\\s+'), lambda word: word <> ''))"

CLUSTERS = (
    "select duplicate_of, count(*) as urls, count(distinct domain) as hosts from ("
    "select duplicate_of, domain from rows where duplicate_of is not null union all "
    "select sample_id, domain from kept semi join (select duplicate_of as sample_id from rows) using (sample_id)"
    ") group by duplicate_of"
)
"""A group is the picture that is kept and all that were dropped for it, near or exact."""

MEDIA_FIGURES: tuple[Figure, ...] = (
    Figure(
        "pictures.bytes",
        "Bytes of pictures as stored",
        "pictures",
        "bytes",
        "select coalesce(sum(media_bytes), 0) from kept",
        ("rows.media_bytes",),
    ),
    Figure(
        "pictures.distinct",
        "Distinct pictures by sha256",
        "pictures",
        "number",
        "select count(distinct sha256) from kept",
        ("rows.sha256",),
    ),
    Figure(
        "pictures.formats",
        "Formats",
        "pictures",
        "bars",
        ranking("format", "kept"),
        ("rows.format",),
    ),
    Figure(
        "pictures.width_px",
        "Width as stored, pixels",
        "pictures",
        "histogram",
        histogram("width", "kept", PIXEL_EDGES),
        ("rows.width",),
    ),
    Figure(
        "pictures.height_px",
        "Height as stored, pixels",
        "pictures",
        "histogram",
        histogram("height", "kept", PIXEL_EDGES),
        ("rows.height",),
    ),
    Figure(
        "pictures.aspect",
        "Aspect ratio, width to height",
        "pictures",
        "histogram",
        histogram("width::double / greatest(height, 1)", "kept", ASPECT_EDGES),
        ("rows.width", "rows.height"),
    ),
    Figure(
        "captions.words",
        "Words per caption",
        "texts",
        "histogram",
        histogram(WORDS, "kept", WORD_EDGES),
        ("rows.caption",),
    ),
    Figure(
        "captions.distinct",
        "Distinct captions",
        "texts",
        "number",
        "select count(distinct caption) from kept",
        ("rows.caption",),
    ),
    Figure(
        "captions.languages",
        "Languages",
        "texts",
        "bars",
        ranking("language", "kept", TOP_ROWS),
        ("rows.language",),
    ),
    Figure(
        "quality.similarity",
        "CLIP similarity of picture and caption",
        "quality",
        "histogram",
        histogram("src_similarity", "kept", UNIT_EDGES),
        ("rows.src_similarity",),
    ),
    Figure(
        "quality.measured_similarity",
        "CLIP similarity as measured here",
        "quality",
        "histogram",
        histogram("clip_similarity", "kept", UNIT_EDGES),
        ("rows.clip_similarity",),
    ),
    Figure(
        "safety.nsfw",
        "Unsafe-content score of the source",
        "quality",
        "histogram",
        histogram("src_nsfw", "kept", UNIT_EDGES),
        ("rows.src_nsfw",),
    ),
    Figure(
        "duplicates.dropped",
        "Duplicates taken out",
        "quality",
        "bars",
        "select reason as label, count(*) as amount from rows where stage = 'dedup' and decision = 'dropped' "
        "group by label order by amount desc, label",
        ("rows.stage", "rows.reason"),
    ),
    Figure(
        "duplicates.clusters",
        "URLs that show the same picture, or nearly the same: size of each group",
        "quality",
        "histogram",
        histogram("urls", f"({CLUSTERS})", COUNT_EDGES),
        ("rows.duplicate_of",),
    ),
    Figure(
        "duplicates.largest",
        "Largest groups of duplicates (picture kept instead, URLs, hosts)",
        "quality",
        "table",
        f"select duplicate_of, urls, hosts from ({CLUSTERS}) order by urls desc, duplicate_of limit 10",
        ("rows.duplicate_of",),
    ),
    Figure(
        "contamination.dropped",
        "Matches with evaluation data taken out",
        "quality",
        "bars",
        "select reason as label, count(*) as amount from rows where stage = 'decontaminate' and decision = 'dropped' "
        "group by label order by amount desc, label",
        ("rows.stage", "rows.reason"),
    ),
    Figure(
        "contamination.benchmarks",
        "Evaluation sets that rows stand in",
        "quality",
        "bars",
        "select benchmark as label, count(*) as amount from rows where benchmark is not null "
        "group by label order by amount desc, label",
        ("rows.benchmark",),
    ),
)

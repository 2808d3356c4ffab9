"""Figures about built samples, and the pictures that a card shows."""

from __future__ import annotations

from owl3.cards.figure import COUNT_EDGES, TOP_ROWS, Figure, histogram, ranking

_LICENCES = "array_to_string(list_sort(string_split(licence, ' | ')), ' | ')"
"""A sample names the licences of its parents in the order of their appearance; the same ones are one row here."""

TOKEN_EDGES = (0, 16, 32, 64, 128, 256, 512, 768, 1024, 2048, 4096, 8192)
GRID_CELLS = 24
RANDOM_ORDER = "md5(sample_id)"

SAMPLE_FIGURES: tuple[Figure, ...] = (
    Figure(
        "samples.seen",
        "Samples considered",
        "samples",
        "number",
        "select count(*) from built",
        ("built.sample_id",),
    ),
    Figure(
        "samples.kept",
        "Samples built",
        "samples",
        "number",
        "select count(*) from samples",
        ("built.sample_id",),
    ),
    Figure(
        "samples.drops",
        "Why samples were dropped",
        "samples",
        "bars",
        "select builder || ': ' || reason as label, count(*) as amount from built where decision = 'dropped' "
        "group by label order by amount desc, label",
        ("built.reason",),
    ),
    Figure(
        "samples.builders",
        "Samples by builder (builder, kind, samples, pictures)",
        "samples",
        "table",
        "select coalesce(builder, '') as builder, kind, count(*) as amount, sum(images) from samples "
        "group by builder, kind order by amount desc, builder, kind",
        ("built.builder",),
    ),
    Figure(
        "samples.images",
        "Pictures or frames per sample",
        "samples",
        "histogram",
        histogram("images", "samples", COUNT_EDGES),
        ("built.images",),
    ),
    Figure(
        "samples.media",
        "Pictures and frames in all samples",
        "samples",
        "number",
        "select coalesce(sum(images), 0) from samples",
        ("built.images",),
    ),
    Figure(
        "samples.frames",
        "Video frames in all samples",
        "samples",
        "number",
        "select count(*) from (select unnest(media) as m from samples) where m.time_s is not null",
        ("built.media",),
    ),
    Figure(
        "samples.text_tokens",
        "Text tokens per sample",
        "samples",
        "histogram",
        histogram("text_tokens", "samples", TOKEN_EDGES),
        ("built.text_tokens",),
    ),
    Figure(
        "samples.trained_tokens",
        "Trained tokens in all samples",
        "samples",
        "number",
        "select coalesce(sum(trained_tokens), 0) from samples",
        ("built.trained_tokens",),
    ),
    Figure(
        "samples.licences",
        "Licences of built samples",
        "samples",
        "bars",
        ranking(_LICENCES, "samples", TOP_ROWS),
        ("built.licence",),
    ),
    Figure(
        "samples.parents",
        "Pictures' samples used by built samples",
        "samples",
        "number",
        "select count(distinct parent) from (select unnest(parents) as parent from samples)",
        ("built.parents",),
    ),
    Figure(
        "grid.random",
        "A random choice of pictures",
        "grid",
        "ids",
        f"select sample_id, sha256, caption from kept order by {RANDOM_ORDER}, sample_id limit {GRID_CELLS}",
        ("rows.sha256",),
    ),
    Figure(
        "grid.worst",
        "The pictures most likely to be poor: smallest sides, longest shapes",
        "grid",
        "ids",
        "select sample_id, sha256, caption from kept "
        "order by least(width, height)::double / greatest(width, height, 1) "
        f"* least(width, height, 512), sample_id limit {GRID_CELLS // 2}",
        ("rows.sha256",),
    ),
    Figure(
        "grid.duplicates",
        "Pictures that the most URLs show, each kept once",
        "grid",
        "ids",
        "select k.sample_id, k.sha256, k.caption from kept k join (select duplicate_of, count(*) as urls from rows "
        "where duplicate_of is not null group by duplicate_of) d on k.sample_id = d.duplicate_of "
        f"order by d.urls desc, k.sample_id limit {GRID_CELLS // 2}",
        ("rows.duplicate_of", "rows.sha256"),
    ),
)

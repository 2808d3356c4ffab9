"""Where every row comes from: each source row in the shards once, each parent of a built sample kept before it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import duckdb

from owl3.cards import tables
from owl3.cards.chain import Link, artifact_folder
from owl3.cards.findings import Check, failed
from owl3.cards.redaction import agrees
from owl3.ledger import read_tombstones
from owl3.samples import is_redacted
from owl3.storage import stays_inside

_PASSED_ON = ("canonical_url", "domain", "licence", "position", "start_s", "end_s")
"""Columns of a source that curation does not change."""


def problems(files_of: Mapping[tuple[str, str], list[Path]], workspace: Path, link: Link, subject: str) -> list[Check]:
    """Ids that stand twice, rows that no source has, parents that nothing keeps."""
    assert link.manifest is not None
    files = files_of[(link.stated.kind, link.stated.name)]
    found = list(_twice(files, subject))
    if link.stated.kind == "shards":
        found += _silent_rows(files, workspace, subject)
        sources = [
            file
            for parent in link.manifest.parents
            if parent.kind == "source" and stays_inside(parent.name)
            for file in sorted((artifact_folder(workspace, "source", parent.name)).glob("urls-*.parquet"))
        ]
        if sources:
            found += _against_source(files, sources, subject)
    else:
        before = [file for parent in link.manifest.parents for file in files_of.get((parent.kind, parent.name), [])]
        found += _orphans(files, before, subject)
        found += _strange_media(files, before, subject)
    return found


def _twice(files: list[Path], subject: str) -> Iterator[Check]:
    query = (
        f"select sample_id, count(*) as amount from read_parquet({tables.file_list(files)}, union_by_name = true) "
        "where decision = 'kept' group by sample_id having amount > 1 order by sample_id limit 20"
    )
    for sample_id, amount in duckdb.sql(query).fetchall():
        yield failed("source", f"{subject} {sample_id}", "kept once", f"kept {amount} times")


def _silent_rows(files: list[Path], workspace: Path, subject: str) -> Iterator[Check]:
    """Rows without a URL: a takedown makes them, and leaves a tombstone; nobody else may."""
    rows = f"read_parquet({tables.file_list(files)}, union_by_name = true)"
    retracted = read_tombstones(workspace).select(["sample_id"])
    with duckdb.connect(":memory:") as db:
        columns = {row[0] for row in db.execute(f"describe select * from {rows}").fetchall()}
        if "url" not in columns:
            return
        db.register("retracted", retracted)
        query = (
            f"select sample_id, decision, reason, sample_id in (select sample_id from retracted) from {rows} "
            "where url is null and not (decision = 'dropped' and reason = 'tombstoned' "
            "and sample_id in (select sample_id from retracted)) order by sample_id limit 20"
        )
        for sample_id, decision, reason, is_buried in db.execute(query).fetchall():
            said = f"{decision} {reason or ''}".strip() + ("" if is_buried else ", no tombstone")
            yield failed("source", f"{subject} {sample_id}", "a URL, or a takedown", said)


def _against_source(files: list[Path], sources: list[Path], subject: str) -> list[Check]:
    """Compare ids, URLs and captions of the shards with the source's table, in both directions."""
    rows = f"read_parquet({tables.file_list(files)}, union_by_name = true)"
    urls = f"read_parquet({tables.file_list(sources)}, union_by_name = true)"
    columns = {row[0] for row in duckdb.sql(f"describe select * from {urls}").fetchall()}
    if not {"sample_id", "url"} <= columns:
        return [failed("source", subject, "a source table with sample_id and url", ", ".join(sorted(columns)))]
    live = "where decision = 'kept'" if "decision" in columns else ""
    problems = _captions_unlike_the_source(rows, urls, subject) if "caption" in columns else []
    problems += _columns_unlike_the_source(rows, urls, columns, subject)
    problems += _hosts_unlike_their_urls(rows, subject)
    query = f"""
        with r as (select sample_id, any_value(url) as url, count(*) as amount from {rows} group by sample_id),
             s as (select sample_id, any_value(url) as url, count(*) as amount from {urls} {live} group by sample_id)
        select coalesce(r.sample_id, s.sample_id) as id, s.url, s.amount, r.url, r.amount
        from r full join s on r.sample_id = s.sample_id
        where r.sample_id is null or s.sample_id is null or r.amount <> s.amount or r.url is distinct from s.url
        order by id limit 20
    """
    return problems + [
        failed(
            "source",
            f"{subject} {sample_id}",
            f"source: {stated_amount or 0} rows {stated or ''}",
            f"{amount or 0} rows {url or ''}",
        )
        for sample_id, stated, stated_amount, url, amount in duckdb.sql(query).fetchall()
    ]


def _captions_unlike_the_source(rows: str, urls: str, subject: str) -> list[Check]:
    """Captions that are not the source's, unless something was taken out of them."""
    query = f"""
        select r.sample_id, s.url, s.caption, r.caption from {rows} r join {urls} s on r.sample_id = s.sample_id
        where r.caption is not null and r.caption is distinct from s.caption order by r.sample_id
    """
    return [
        failed("source", f"{subject} {sample_id} caption", source, caption)
        for sample_id, url, source, caption in duckdb.sql(query).fetchall()
        if None in (url, source) or not (is_redacted(caption) and agrees(sample_id, url, source, caption))
    ][:20]


def _columns_unlike_the_source(rows: str, urls: str, columns: Collection[str], subject: str) -> list[Check]:
    """What a source says of a row goes through curation as it is: its licence, and whatever its corpus said."""
    present = {row[0] for row in duckdb.sql(f"describe select * from {rows}").fetchall()} & set(columns)
    passed_on = [name for name in present if name in _PASSED_ON or name.startswith("src_")]
    found = []
    for name in sorted(passed_on):
        column = f'"{name.replace(chr(34), chr(34) * 2)}"::varchar'
        query = (
            f"select r.sample_id, s.{column}, r.{column} from {rows} r join {urls} s on r.sample_id = s.sample_id "
            f"where r.{column} is distinct from s.{column} order by r.sample_id limit 20"
        )
        found += [
            failed("source", f"{subject} {sample_id} {name}", source, value)
            for sample_id, source, value in duckdb.sql(query).fetchall()
        ]
    return found


def _hosts_unlike_their_urls(rows: str, subject: str) -> list[Check]:
    """Domains that are not those of their URLs; an address in brackets is told by the URL alone."""
    columns = {row[0] for row in duckdb.sql(f"describe select * from {rows}").fetchall()}
    if not {"canonical_url", "domain"} <= columns:
        return []
    host = r"regexp_extract(canonical_url, '^https?://([^/?#:\[]+)', 1)"
    query = (
        f"select sample_id, domain, {host} as host from {rows} where canonical_url is not null and domain <> host "
        "and host <> '' order by sample_id limit 20"
    )
    return [
        failed("source", f"{subject} {sample_id} domain", domain, host)
        for sample_id, domain, host in duckdb.sql(query).fetchall()
    ]


def _orphans(files: list[Path], before: list[Path], subject: str) -> list[Check]:
    """Built samples with a parent that no earlier artifact keeps."""
    if not before:
        return []
    built, earlier = (f"read_parquet({tables.file_list(f)}, union_by_name = true)" for f in (files, before))
    query = f"""
        with p as (select sample_id, unnest(parents) as parent from {built} where decision = 'kept'),
             k as (select distinct sample_id from {earlier} where decision = 'kept')
        select p.sample_id, p.parent from p anti join k on p.parent = k.sample_id order by all limit 20
    """
    return [
        failed("source", f"{subject} {sample_id}", f"parent {parent}", "kept by no artifact before it")
        for sample_id, parent in duckdb.sql(query).fetchall()
    ]


def _strange_media(files: list[Path], before: list[Path], subject: str) -> list[Check]:
    """Pictures of built samples that are none of their parents' pictures, nor one of them made smaller.

    Parents that are built samples themselves answer for their pictures there; frames of clips are new bytes.
    """
    built, earlier = (f"read_parquet({tables.file_list(f)}, union_by_name = true)" for f in (files, before or files))
    columns = {row[0] for row in duckdb.sql(f"describe select * from {earlier}").fetchall()}
    if not {"sha256", "width", "height"} <= columns:
        return []
    query = f"""
        with m as (select sample_id, parents, unnest(media) as medium from {built} where decision = 'kept'),
             p as (select sample_id, sha256, width, height from {earlier}
                   where decision = 'kept' and sha256 is not null)
        select m.sample_id, m.medium.sha256 from m
        where m.medium.time_s is null
          and exists (from p where list_contains(m.parents, p.sample_id))
          and not exists (from p where list_contains(m.parents, p.sample_id) and
                          (p.sha256 = m.medium.sha256
                           or (p.width > m.medium.width and p.height > m.medium.height)))
        order by all limit 20
    """
    return [
        failed("source", f"{subject} {sample_id}", "a picture of its parents", f"sha256 {sha256[:16]} of another")
        for sample_id, sha256 in duckdb.sql(query).fetchall()
    ]

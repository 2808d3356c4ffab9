"""Figures about URLs: what came in, what was kept, why the rest was not, and who was asked."""

from __future__ import annotations

from owl3.cards.figure import TOP_ROWS, Figure, ranking

URL_FIGURES: tuple[Figure, ...] = (
    Figure(
        "rows.seen",
        "URLs seen",
        "funnel",
        "number",
        "select count(*) from rows",
        ("rows.sample_id",),
    ),
    Figure(
        "rows.kept",
        "Pictures kept",
        "funnel",
        "number",
        "select count(*) from kept",
        ("rows.sample_id",),
    ),
    Figure(
        "rows.dropped",
        "URLs dropped",
        "funnel",
        "number",
        "select count(*) from rows where decision = 'dropped'",
        ("rows.sample_id",),
    ),
    Figure(
        "rows.drops",
        "Why URLs were dropped",
        "funnel",
        "bars",
        "select stage || ': ' || reason as label, count(*) as amount from rows where decision = 'dropped' "
        "group by label order by amount desc, label",
        ("rows.stage", "rows.reason"),
    ),
    Figure(
        "rows.licences",
        "Licences of kept pictures",
        "rights",
        "bars",
        ranking("licence", "kept", TOP_ROWS),
        ("rows.licence",),
    ),
    Figure(
        "rights.signals",
        "Rights signals seen (signal, value, decision, URLs)",
        "rights",
        "table",
        "select rights_signal, coalesce(rights_value, '') as answer, decision, count(*) as amount from rows "
        "where rights_signal is not null group by all order by amount desc, rights_signal, answer, decision",
        ("rows.rights_signal",),
    ),
    Figure(
        "links.status",
        "Answers of servers",
        "links",
        "bars",
        ranking("coalesce(http_status, 'no answer')", "rows", TOP_ROWS),
        ("rows.http_status",),
    ),
    Figure(
        "links.causes",
        "Why pictures could not be fetched",
        "links",
        "bars",
        "select reason as label, count(*) as amount from rows where stage = 'fetch' and decision = 'dropped' "
        "group by label order by amount desc, label",
        ("rows.stage", "rows.reason"),
    ),
    Figure(
        "links.health",
        "Link health by domain (domain, URLs, failed to fetch)",
        "links",
        "table",
        "select domain, count(*) as amount, count(*) filter (where decision = 'dropped' and stage = 'fetch') as failed "
        f"from rows group by domain order by failed desc, amount desc, domain limit {TOP_ROWS}",
        ("rows.stage", "rows.domain"),
    ),
    Figure(
        "domains.count",
        "Domains with kept pictures",
        "domains",
        "number",
        "select count(distinct domain) from kept",
        ("rows.domain",),
    ),
    Figure(
        "domains.top",
        "Domains",
        "domains",
        "bars",
        ranking("domain", "kept", TOP_ROWS),
        ("rows.domain",),
    ),
    Figure(
        "domains.top_tenth_share",
        "Share of kept pictures from the top 10 % of domains",
        "domains",
        "share",
        "with d as (select domain, count(*) as n from kept group by domain), "
        "r as (select n, row_number() over (order by n desc, domain) as place, count(*) over () as domains from d) "
        "select round(sum(n) filter (where place <= ceil(domains / 10.0))::double / greatest(sum(n), 1), 6) from r",
        ("rows.domain",),
    ),
)

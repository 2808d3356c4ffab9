"""What servers say about training, and what is made of it."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owl3.curate.rights import (
    MiningRules,
    RightsConfig,
    Robots,
    Verdict,
    check_headers,
    denies_usage,
    longest_match,
    robots_from_status,
)

RULES = RightsConfig()


def verdict(*headers: tuple[str, str]) -> str | None:
    return check_headers(headers, "owl3", RULES).reason


@pytest.mark.parametrize(
    "value",
    [
        *(
            "noai",
            "NOAI",
            "nofollow, noimageai",
            "noindex",
            "none",
            "owl3: noai",
            "Owl3 : noindex, nofollow",
            "*: noai",
        ),
        *("googlebot: nofollow, owl3: noai", "noai, googlebot: nofollow", "googlebot: none, *: nofollow, noai"),
        "unavailable_after: Wed, 25 Jun 2030 15:00:00 GMT, noai",
    ],
)
def test_an_opt_out_is_honoured(value: str) -> None:
    assert verdict(("X-Robots-Tag", value)) == "opt_out_header"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "all",
        "nofollow",
        "googlebot: noindex",
        "googlebot: nofollow, noindex, bingbot: noai",
        "owl3: nofollow, googlebot: noai",
        "max-snippet: 50, nofollow",
        "unavailable_after: 25 Jun 2030 15:00:00 PST",
    ],
)
def test_directives_that_are_not_about_us_or_not_about_use(value: str) -> None:
    assert verdict(("X-Robots-Tag", value)) is None


def test_any_of_several_headers_refuses() -> None:
    assert verdict(("X-Robots-Tag", "googlebot: noindex"), ("x-robots-tag", "noai")) == "opt_out_header"
    assert verdict(("tdm-reservation", "1")) == "tdm_reserved"
    assert verdict(("TDM-Reservation", "0")) is None
    assert verdict(("Content-Usage", "search=y, train-ai=n")) == "aipref_disallowed"
    assert verdict(("Content-Usage", "search=n, train-ai=y")) is None


def test_signals_that_the_recipe_ignores() -> None:
    deaf = RightsConfig(disallowed_header_directives=(), tdm_reservation=False, content_usage=())
    headers = [("X-Robots-Tag", "noai"), ("tdm-reservation", "1"), ("Content-Usage", "train-ai=n")]
    assert check_headers(headers, "owl3", deaf).reason is None


def test_what_was_found_is_evidence_even_when_it_allows() -> None:
    found = check_headers([("Content-Usage", "train-ai=y")], "owl3", RULES)
    assert (found.signal, found.value, found.reason) == ("content-usage", "train-ai=y", None)


@pytest.mark.parametrize(
    ("value", "denied"),
    [
        ("train-ai=n", True),
        ("Train-AI=n;x=1", True),
        ("train-ai=y", False),
        ("train-ai", False),
        ("", False),
        ("=n", False),
    ],
)
def test_content_usage_values(value: str, denied: bool) -> None:
    assert denies_usage(value, ("train-ai",)) == denied


def reason(text: str, path: str = "/a/b.jpg") -> str | None:
    return Robots(text, "owl3").check(f"http://a.example{path}", path, RULES).reason


def test_robots_txt_for_all_and_for_us() -> None:
    assert reason("User-agent: *\nDisallow: /") == "robots_disallowed"
    assert reason("User-agent: *\nDisallow: /x") is None
    assert reason("User-agent: *\nDisallow: /\nUser-agent: owl3\nAllow: /") is None
    assert reason("User-agent: owl3\nDisallow: /a/*.jpg$") == "robots_disallowed"
    assert reason("\x00 garbage \n::::") is None


def test_content_usage_in_robots_txt() -> None:
    assert reason("User-agent: *\nContent-Usage: train-ai=n") == "aipref_disallowed"
    assert reason("User-agent: *\nContent-Usage: /a/ train-ai=n\nAllow: /") == "aipref_disallowed"
    assert reason("User-agent: *\nContent-Usage: /c/ train-ai=n\nAllow: /") is None
    assert reason("User-agent: *\nContent-Usage: train-ai=n\n\nUser-agent: owl3\nContent-Usage: train-ai=y") is None


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (404, None),
        (410, None),
        (400, None),
        (401, "robots_disallowed"),
        (403, "robots_disallowed"),
        (503, "robots_unavailable"),
    ],
)
def test_errors_on_robots_txt(status: int, expected: str | None) -> None:
    assert robots_from_status(status, "owl3", RULES).check("http://a.example/", "/", RULES).reason == expected


def test_what_an_error_means_is_a_setting() -> None:
    trusting = RightsConfig(robots_refuse_on=())
    strict = RightsConfig(robots_refuse_on=("4xx",))
    assert robots_from_status(503, "owl3", trusting).check("", "/", trusting).reason is None
    assert robots_from_status(400, "owl3", strict).check("", "/", strict).reason == "robots_disallowed"
    assert robots_from_status(404, "owl3", strict).check("", "/", strict).reason is None


def test_crawl_delay_is_read() -> None:
    assert Robots("User-agent: *\nCrawl-delay: 3", "owl3").crawl_delay_s() == 3


MINING = b'[{"location": "/free/*", "tdm-reservation": 0}, {"location": "/", "tdm-reservation": 1}]'


def test_the_longest_rule_of_tdmrep_json_decides() -> None:
    rules = MiningRules(MINING)
    assert rules.check("/free/a.jpg") == Verdict("tdmrep.json", "0 /free/*")
    assert rules.check("/a.jpg") == Verdict("tdmrep.json", "1 /", "tdm_reserved")
    assert MiningRules(b'[{"location": "/x", "tdm-reservation": 1}]').check("/a.jpg") is None


@given(st.binary(max_size=40) | st.recursive(st.none() | st.integers(), st.lists).map(lambda v: json.dumps(v).encode()))
def test_a_tdmrep_json_that_is_none_reserves_nothing(body: bytes) -> None:
    assert MiningRules(body).check("/a.jpg") is None


@given(st.text("ab*/", max_size=8), st.text("ab/", max_size=8), st.booleans())
def test_patterns_match_as_regular_expressions_would(pattern: str, path: str, ends: bool) -> None:
    expression = "".join(".*" if part == "*" else re.escape(part) for part in pattern) + ("$" if ends else "")
    found = longest_match([pattern + "$" * ends], path) is not None
    assert found == (re.match(expression, path) is not None)

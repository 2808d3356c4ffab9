"""What a server says about the use of its pictures, and whether that allows training.

Signals, in the order they are read:

    robots.txt        Disallow / Content-Usage for our user agent      (RFC 9309, IETF AIPREF)
    tdmrep.json       tdm-reservation of a path, for the whole host    (W3C TDM Reservation Protocol)
    X-Robots-Tag      noai, noimageai, noindex, noimageindex …         (img2dataset's `disallowed_header_directives`)
    TDM-Reservation   1                                                (W3C TDM Reservation Protocol)
    Content-Usage     train-ai=n                                       (IETF AIPREF)

Everything here is pure: headers in, a `Verdict` out. The verdict is the evidence that the ledger keeps for every URL,
whether the picture was kept or not.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from protego import Protego
from pydantic import Field

from owl3.config import Config

_AGENT = re.compile(r"\*|[a-z_][a-z0-9_.-]*")
_VALUED_DIRECTIVES = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")


class RightsConfig(Config):
    """Which signals count, and what happens when a signal can't be read."""

    robots: bool = True
    robots_refuse_on: tuple[Literal["401", "403", "4xx", "5xx", "unreachable"], ...] = ("401", "403", "5xx")
    """Answers to /robots.txt that mean 'keep out'. 404 and 410 always mean that there is none."""
    robots_cache_s: float = Field(default=86_400, gt=0)
    disallowed_header_directives: tuple[str, ...] = ("noai", "noimageai", "noindex", "noimageindex", "none")
    """img2dataset's flag; directives of X-Robots-Tag that refuse. `none` means noindex, nofollow."""
    tdm_reservation: bool = True
    """Honour TDM reservations: the response header, and the host's /.well-known/tdmrep.json."""
    content_usage: tuple[str, ...] = ("train-ai", "train-genai", "ai", "bots")
    """AIPREF usage categories that must not be `n`; empty to ignore the signal."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One signal and what it means for us; `reason` is None when it does not stand against the use."""

    signal: str  # robots.txt | tdmrep.json | x-robots-tag | tdm-reservation | content-usage
    value: str
    reason: str | None = None


ALLOWED = Verdict("none", "")
"""Signals were looked for and none was found."""


def check_headers(headers: Iterable[tuple[str, str]], agent: str, config: RightsConfig) -> Verdict:
    """Read the rights headers of a response; the first that refuses wins.

    Args:
        headers: Name and value, repeated names allowed.
        agent: Our product token, as robots.txt would name us.
    """
    found = ALLOWED
    for name, value in headers:
        match name.lower():
            case "x-robots-tag":
                verdict = _check_x_robots(value, agent, config.disallowed_header_directives)
            case "tdm-reservation" if config.tdm_reservation:
                reserved = value.strip() == "1"
                verdict = Verdict("tdm-reservation", value, "tdm_reserved" if reserved else None)
            case "content-usage" if config.content_usage:
                denied = denies_usage(value, config.content_usage)
                verdict = Verdict("content-usage", value, "aipref_disallowed" if denied else None)
            case _:
                continue
        if verdict.reason:
            return verdict
        found = verdict
    return found


def _check_x_robots(value: str, agent: str, disallowed: Sequence[str]) -> Verdict:
    """Read one X-Robots-Tag: `noai, noimageai`, or `onebot: noindex, nofollow, other: noai` for some agents only."""
    directives, is_ours = set(), True
    for part in value.lower().split(","):
        before, separator, after = part.partition(":")
        name = before.strip()
        names_agent = bool(separator and _AGENT.fullmatch(name)) and name not in _VALUED_DIRECTIVES
        if names_agent:
            is_ours = name in (agent.lower(), "*")
        if is_ours:
            directives.add((after if names_agent else part).strip())
    refused = bool(directives & {directive.strip().lower() for directive in disallowed})
    return Verdict("x-robots-tag", value, "opt_out_header" if refused else None)


def parse_usage(value: str) -> dict[str, str]:
    """Read a Content-Usage dictionary (`train-ai=n;x=1, search=y`) into usage category and y or n."""
    usage = {}
    for member in value.split(","):
        key, separator, rest = member.strip().partition("=")
        if separator:
            usage[key.strip().lower()] = rest.split(";")[0].strip().lower()
    return usage


def denies_usage(value: str, categories: Sequence[str]) -> bool:
    """Does a Content-Usage value say `n` to one of `categories`?"""
    usage = parse_usage(value)
    return any(usage.get(category) == "n" for category in categories)


class Robots:
    """One host's robots.txt, or what its absence means."""

    def __init__(self, text: str, agent: str, verdict: Verdict | None = None) -> None:
        """`verdict` fixes the answer for all paths, for hosts whose robots.txt says nothing or can't be read."""
        self._agent = agent
        self._fixed = verdict
        self.num_bytes = len(text)
        self._rules = Protego.parse(text)
        self._usage = _usage_rules(text, agent)

    def check(self, url: str, path: str, config: RightsConfig) -> Verdict:
        """May our agent fetch `url` and train on it?"""
        if self._fixed:
            return self._fixed
        if not self._rules.can_fetch(url, self._agent):
            return Verdict("robots.txt", f"disallow {path}", "robots_disallowed")
        rule = longest_match(self._usage, path)
        if rule is not None and denies_usage(self._usage[rule], config.content_usage):
            return Verdict("robots.txt", f"content-usage {self._usage[rule]}", "aipref_disallowed")
        return Verdict("robots.txt", "allow")

    def crawl_delay_s(self) -> float:
        """Seconds between requests that the host asks of us; 0 when it does not say."""
        return 0.0 if self._fixed else float(self._rules.crawl_delay(self._agent) or 0.0)


class MiningRules:
    """One host's tdmrep.json: `[{"location": "/photos/*", "tdm-reservation": 1, "tdm-policy": "https://…"}]`.

    A body that is not such a list reserves nothing: the protocol knows no answer but an explicit one.
    """

    def __init__(self, body: bytes) -> None:
        try:
            entries = json.loads(body) if body else []
        except (ValueError, RecursionError):
            entries = []
        self.num_bytes = len(body)
        self._reserved: dict[str, bool] = {}
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and isinstance(entry.get("location"), str):
                reserved = str(entry.get("tdm-reservation")) == "1"
                self._reserved[entry["location"]] = reserved or self._reserved.get(entry["location"], False)

    def check(self, path: str) -> Verdict | None:
        """What the rule that matches `path` most closely says; None when none does."""
        location = longest_match(self._reserved, path)
        if location is None:
            return None
        reserved = self._reserved[location]
        return Verdict("tdmrep.json", f"{int(reserved)} {location}", "tdm_reserved" if reserved else None)


def longest_match(patterns: Iterable[str], path: str) -> str | None:
    """The longest pattern that matches the beginning of a path (RFC 9309 §2.2.2), None if none does."""
    return max((pattern for pattern in patterns if _matches(pattern, path)), key=len, default=None)


def _matches(pattern: str, path: str) -> bool:
    """Does a pattern with `*` (anything) and `$` (the end, when last) match? Linear, whatever a stranger writes."""
    ends = pattern.endswith("$")
    first, *rest = pattern.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    place = len(first)
    for number, part in enumerate(rest, start=1):
        last = ends and number == len(rest)
        found = len(path) - len(part) if last and path.endswith(part) else path.find(part, place)
        if found < place:
            return False
        place = found + len(part)
    return not ends or place == len(path)


def robots_from_status(status: int, agent: str, config: RightsConfig) -> Robots:
    """What an error on /robots.txt means: refuse or allow everything, as the recipe says (RFC 9309 §2.3.1)."""
    klass = f"{status // 100}xx"
    refuse = str(status) in config.robots_refuse_on or klass in config.robots_refuse_on
    if status in (404, 410) or not refuse:
        return Robots("", agent, Verdict("robots.txt", f"{status}: none"))
    reason = "robots_unavailable" if status >= 500 else "robots_disallowed"
    return Robots("", agent, Verdict("robots.txt", f"{status}: refused", reason))


def _usage_rules(text: str, agent: str) -> Mapping[str, str]:
    """Collect `Content-Usage: [/path] train-ai=n` lines of the group for our agent, else of the group for all."""
    groups: dict[str, dict[str, str]] = {}
    agents: list[str] = []
    in_rules = False
    for line in text.splitlines():
        field, separator, value = line.partition("#")[0].partition(":")
        if not separator:
            continue
        field, value = field.strip().lower(), value.strip()
        if field == "user-agent":
            agents = [value.lower()] if in_rules else [*agents, value.lower()]
            in_rules = False
            continue
        in_rules = True
        if field == "content-usage":
            path, usage = value.split(None, 1) if value.startswith("/") and " " in value else ("/", value)
            for name in agents or ["*"]:
                groups.setdefault(name, {})[path] = usage
    return groups.get(agent.lower(), groups.get("*", {}))

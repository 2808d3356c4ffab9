"""What an audit found: one check per claim, with both values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

MOST_SHOWN = 400
"""Longer values are cut in reports."""


@dataclass(frozen=True, slots=True)
class Check:
    """One claim and what the bytes say.

    Attributes:
        area: chain, files, counts, rows, source, samples, figures or documents.
        subject: What the claim is about: an artifact, a file, a sample, a figure.
        stated: What the card, manifest or ledger says.
        found: What was derived.
    """

    area: str
    subject: str
    passed: bool
    stated: str = ""
    found: str = ""

    def line(self, most: int = 1000) -> str:
        """One line for people, with so many letters of each value."""
        if self.passed:
            return f"{self.area}: {self.subject}: holds"
        stated, found = (value if len(value) <= most else f"{value[:most]}…" for value in (self.stated, self.found))
        return f"{self.area}: {self.subject}: stated {stated or 'nothing'}, found {found or 'nothing'}"


def passed(area: str, subject: str, value: Any = "") -> Check:
    """A claim that holds."""
    return Check(area, subject, True, cut(value), cut(value))


def failed(area: str, subject: str, stated: Any, found: Any) -> Check:
    """A claim that does not."""
    return Check(area, subject, False, cut(stated), cut(found))


def compared(area: str, subject: str, stated: Any, found: Any) -> Check:
    """A claim with its derived value: equal or not."""
    return passed(area, subject, stated) if stated == found else failed(area, subject, stated, found)


def cut(value: Any) -> str:
    """A value as text, bounded."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def first_line(error: Exception) -> str:
    """What an error says, on one line; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@dataclass
class Findings:
    """Collects checks in the order in which they were made."""

    checks: list[Check] = field(default_factory=list)

    def add(self, *checks: Check) -> None:
        """Append checks."""
        self.checks.extend(checks)

    def summarise(self, area: str, subject: str, problems: Iterable[Check], what: str) -> None:
        """Add the problems, or one passing check that says what was looked at."""
        found = list(problems)
        self.checks.extend(found or [passed(area, subject, what)])

    def false(self) -> list[Check]:
        """The claims that do not hold."""
        return [check for check in self.checks if not check.passed]

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks)

    def as_data(self) -> list[dict[str, Any]]:
        """JSON's own types."""
        return [asdict(check) for check in self.checks]

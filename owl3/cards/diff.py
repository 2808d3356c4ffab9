"""`owl3 card --diff A B`: what changed between two versions, in words and numbers.

Not a difference of texts: figures are compared as what they are. Numbers say by how much, rankings say what came, went
and shifted in share, histograms say how far the middle moved, and the ids of samples that went are told with the reason
where a tombstone gives one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from owl3.cards import charts
from owl3.cards.drawing import single
from owl3.cards.figure import Figure, Value
from owl3.cards.figures import FIGURES
from owl3.errors import InputError
from owl3.manifest import Manifest, read_manifest
from owl3.storage import read_json

MIN_SHIFT = 0.002
"""Shares that moved by less than this part of the whole are not told one by one."""


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    Attributes:
        sentence: For people.
        before: Values as on the cards, for machines.
    """

    subject: str
    sentence: str
    before: Any
    after: Any


def diff(before: Path, after: Path) -> list[Change]:
    """Compare two rendered cards; empty when they tell of the same.

    Raises:
        InputError: one of them is no card.
    """
    old, new = _read(before), _read(after)
    changes = _artifacts(old.manifest, new.manifest) + _facts(old.manifest, new.manifest)
    for figure in FIGURES:
        a, b = old.values.get(figure.name), new.values.get(figure.name)
        if a == b:
            continue
        if a is None or b is None:
            word = "is measured now" if a is None else "is not measured any more"
            changes.append(Change(figure.name, f"{_name(figure)} {word}", a, b))
        else:
            changes += _figure(figure, a, b)
    return changes


@dataclass(frozen=True)
class _Card:
    manifest: Manifest
    values: Mapping[str, Value]


def _read(folder: Path) -> _Card:
    manifest = read_manifest(folder)
    if manifest.kind != "card":
        raise InputError(f"{folder}: holds a {manifest.kind}, not a card")
    return _Card(manifest, read_json(folder / "figures.json"))


def _artifacts(old: Manifest, new: Manifest) -> list[Change]:
    a = {f"{parent.kind} {parent.name}": parent.digest for parent in old.parents}
    b = {f"{parent.kind} {parent.name}": parent.digest for parent in new.parents}
    changes = []
    for name in sorted({*a, *b}):
        if name not in a or name not in b:
            word = "added" if name not in a else "left out"
            changes.append(Change(name, f"{name} was {word}", a.get(name), b.get(name)))
        elif a[name] != b[name]:
            changes.append(
                Change(name, f"{name} was made anew ({a[name][:12]} is {b[name][:12]} now)", a[name], b[name])
            )
    return changes


def _facts(old: Manifest, new: Manifest) -> list[Change]:
    a, b = (manifest.recipe.get("facts", {}) for manifest in (old, new))
    return [
        Change(f"facts.{key}", f"what people say about {key.replace('_', ' ')} changed", a.get(key), b.get(key))
        for key in sorted({*a, *b})
        if a.get(key) != b.get(key)
    ]


def _figure(figure: Figure, a: Value, b: Value) -> list[Change]:
    if not isinstance(a, list) or not isinstance(b, list):
        return [Change(figure.name, f"{_name(figure)}: {_moved(figure, a, b)}", a, b)]
    if figure.drawing == "ids":
        return []
    if figure.drawing == "histogram":
        return _histogram(figure, a, b)
    return _ranking(figure, a, b)


def _moved(figure: Figure, a: Value, b: Value) -> str:
    text = f"{single(figure, a)} before, {single(figure, b)} now"
    if isinstance(a, int | float) and isinstance(b, int | float) and a:
        text += f" ({(b - a) / a:+.1%})"
    return text


def _ranking(figure: Figure, a: list[list[Any]], b: list[list[Any]]) -> list[Change]:
    """Rows are labels and one amount; tables of several labels count as one label."""
    before, after = _amounts(a), _amounts(b)
    whole_before, whole_after = sum(before.values()) or 1, sum(after.values()) or 1
    changes = []
    for label in sorted({*before, *after}, key=lambda label: (-max(before.get(label, 0), after.get(label, 0)), label)):
        was, is_now = before.get(label, 0), after.get(label, 0)
        shift = is_now / whole_after - was / whole_before
        if was == is_now or (was and is_now and abs(shift) < MIN_SHIFT):
            continue
        if not was or not is_now:
            word = f"new, {charts.number(is_now)}" if not was else f"gone, {charts.number(was)} before"
            sentence = f"{_name(figure)}: {label} is {word}"
        else:
            numbers = f"{charts.number(was)} before, {charts.number(is_now)} now"
            sentence = f"{_name(figure)}: {label} {numbers} ({100 * shift:+.1f} points of share)"
        changes.append(Change(f"{figure.name}.{label}", sentence, was, is_now))
    return changes


def _amounts(rows: list[list[Any]]) -> dict[str, int]:
    """Label → amount: the first number of a row, named by all that is no number."""
    found: dict[str, int] = {}
    for row in rows:
        label = " · ".join(str(cell) for cell in row if not isinstance(cell, int | float))
        amount = next((cell for cell in row if isinstance(cell, int | float)), 0)
        found[label] = found.get(label, 0) + int(amount)
    return found


def _histogram(figure: Figure, a: list[list[Any]], b: list[list[Any]]) -> list[Change]:
    before, after = _middle(a), _middle(b)
    total_a, total_b = sum(row[2] for row in a), sum(row[2] for row in b)
    shares = zip(a, b, strict=False)
    moved = sum(abs(y[2] / max(total_b, 1) - x[2] / max(total_a, 1)) for x, y in shares) / 2
    if moved < MIN_SHIFT:
        return []
    sentence = f"{_name(figure)}: {moved:.1%} of it lies elsewhere; the middle is {before} before, {after} now"
    return [Change(figure.name, sentence, a, b)]


def _middle(rows: list[list[Any]]) -> str:
    """The bin that holds the median."""
    half = sum(row[2] for row in rows) / 2
    count = 0
    for low, high, amount in rows:
        count += amount
        if amount and count >= half:
            return f"{charts.number(low)} or more" if high is None else f"{charts.number(low)} to {charts.number(high)}"
    return "nowhere"


def _name(figure: Figure) -> str:
    return figure.title.split(" (")[0]

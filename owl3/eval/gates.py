"""What must hold before a stage's weights are handed on.

    scenes-single.accuracy >= 0.5          against a number
    pope.f1 >= previous - 0.01             no worse than the stage before by more than a point
    scenes-single.accuracy >= 2 * blind    against the same questions without images
    sft: pope.f1 >= 0.80                   of one stage

A gate that names no stage guards every one.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from owl3.errors import ConfigError

Figures = Mapping[str, Mapping[str, float]]
"""task -> figure -> value, e.g. {"pope": {"f1": 0.86}}."""

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
}
_PATTERN = re.compile(
    r"^\s*(?:(?P<stage>[\w-]+):\s*)?(?P<task>[\w-]+)\.(?P<figure>\w+)\s*(?P<compare>>=|<=|>|<)\s*"
    r"(?:(?P<factor>\d+(?:\.\d+)?)\s*\*\s*)?(?:(?P<base>previous|blind)\s*(?:(?P<sign>[+-])\s*(?P<offset>\d*\.?\d+))?"
    r"|(?P<number>\d*\.?\d+))\s*$"
)


@dataclass(frozen=True, slots=True)
class Gate:
    """`stage: task.figure compare factor * base + offset`; base "number" stands for 1, no stage for every one."""

    text: str
    stage: str | None
    task: str
    figure: str
    compare: str
    base: Literal["number", "previous", "blind"]
    factor: float
    offset: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a gate found. `passed` is None when there was nothing to compare with (no earlier stage)."""

    gate: Gate
    value: float | None
    bound: float | None
    passed: bool | None

    def line(self) -> str:
        """One line for a person."""
        word = {True: "passed", False: "FAILED", None: "not applicable"}[self.passed]
        value = "absent" if self.value is None else f"{self.value:.4f}"
        bound = "absent" if self.bound is None else f"{self.bound:.4f}"
        return f"gate {self.gate.text}: {word} ({value} against {bound})"


def parse_gate(text: str) -> Gate:
    """Read one gate.

    Raises:
        ConfigError: it is of none of the forms at the head of this file.
    """
    match = _PATTERN.match(text)
    if match is None:
        raise ConfigError(f"gate {text!r}: write it as task.figure >= 0.8, or against `previous - 0.01` or `2 * blind`")
    factor = float(match["factor"] or 1)
    if match["number"] is not None:
        return Gate(
            text,
            match["stage"],
            match["task"],
            match["figure"],
            match["compare"],
            "number",
            factor * float(match["number"]),
            0,
        )
    offset = float((match["sign"] or "+") + (match["offset"] or "0"))
    base: Literal["previous", "blind"] = "previous" if match["base"] == "previous" else "blind"
    return Gate(text, match["stage"], match["task"], match["figure"], match["compare"], base, factor, offset)


def judge(gate: Gate, scores: Figures, *, blind: Figures, previous: Figures) -> Verdict:
    """Compare. A figure that should be there and is not fails its gate; only a missing earlier stage excuses it."""
    value = scores.get(gate.task, {}).get(gate.figure)
    if gate.base == "number":
        bound: float | None = gate.factor
    else:
        base = (previous if gate.base == "previous" else blind).get(gate.task, {}).get(gate.figure)
        bound = None if base is None else gate.factor * base + gate.offset
    if bound is None and gate.base == "previous":
        return Verdict(gate, value, None, None)
    passed = value is not None and bound is not None and _COMPARE[gate.compare](value, bound)
    return Verdict(gate, value, bound, passed)

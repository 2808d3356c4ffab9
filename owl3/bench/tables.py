"""Tables of benchmarks, as they are committed under infra/bench: one Markdown file per benchmark.

# Building samples
| what | figure | target | met |
|---|---|---|---|
| bytes over copy, 2 processes | 0.71 | >= 0.5 | yes |
"""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured number, and what was asked of it; without a target it is there to be read."""

    what: str
    value: float
    target: float | None = None
    better: Literal["higher", "lower"] = "higher"
    unit: str = ""

    @property
    def is_met(self) -> bool | None:
        """None without a target."""
        if self.target is None:
            return None
        return self.value >= self.target if self.better == "higher" else self.value <= self.target

    def cells(self) -> list[str]:
        """Its row of the table."""
        shown = f"{self.value:g} {self.unit}".strip()
        if self.target is None:
            return [self.what, shown, "", ""]
        sign = "≥" if self.better == "higher" else "≤"
        return [self.what, shown, f"{sign} {self.target:g} {self.unit}".strip(), "yes" if self.is_met else "**no**"]


def markdown(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table with numbers to the right."""
    lines = [f"| {' | '.join(head)} |", f"|---|{'--:|' * (len(head) - 1)}"]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def write_figures(path: Path, title: str, figures: Sequence[Figure], *, command: str, more: Sequence[str] = ()) -> None:
    """Write figures with their targets, then further paragraphs or tables, and on what machine they were measured."""
    load = f"load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    machine = f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, Python {platform.python_version()}, {load}"
    table = markdown(("what", "figure", "target", "met"), [figure.cells() for figure in figures])
    parts = [f"# {title}", f"`{command}` on {machine}.", table, *more]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")

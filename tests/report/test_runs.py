"""What the report shows of a run."""

import re
from pathlib import Path

from owl3.manifest import Counts, Manifest
from owl3.report.collect import Artifact
from owl3.report.lineage import draw


def test_a_run_shows_where_the_seconds_of_its_steps_went(report: Path) -> None:
    page = report.read_text(encoding="utf-8")
    drawn = page[page.index("<figcaption>Seconds of a step by phase") :].split("</figure>")[0]
    assert all(phase in drawn for phase in ("load", "forward", "backward", "exchange", "optimizer"))
    assert drawn.count("<polyline") == 4
    assert "load, exchange" in drawn, "two that are alike are drawn once, under both names"


def test_the_lineage_shows_stages_in_the_order_of_training() -> None:
    """By name, multi_image would stand before pretrain."""
    found: list[Artifact] = []
    for stage in ("sft", "multi_image", "pretrain")[::-1]:
        counts = Counts(seen=1, kept=1)
        plan = Manifest(kind="plan", name=f"demo/{stage}", counts=counts, digest=f"plan-{stage}")
        before = found[0].manifest.as_parent() if found else None
        parents = (plan.as_parent(), before) if before else (plan.as_parent(),)
        run = Manifest(kind="run", name=f"demo/{stage}", counts=counts, digest=f"run-{stage}", parents=parents)
        found = [Artifact(run, Path()), Artifact(plan, Path()), *found]
    expected = ["demo/pretrain", "demo/multi_image", "demo/sft"]
    assert re.findall(r">(demo/\w+)</text>", draw(sorted(found, key=lambda a: a.label))) == expected * 2

"""What the report shows of a run."""

from pathlib import Path


def test_a_run_shows_where_the_seconds_of_its_steps_went(report: Path) -> None:
    page = report.read_text(encoding="utf-8")
    drawn = page[page.index("<figcaption>Seconds of a step by phase") :].split("</figure>")[0]
    assert all(phase in drawn for phase in ("load", "forward", "backward", "exchange", "optimizer"))
    assert drawn.count("<polyline") == 5

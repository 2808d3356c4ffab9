"""A yield is low against a bound, and unlike against the days before it."""

from pathlib import Path

import pytest

from owl3.curate.yields import judge_yield
from owl3.manifest import Counts, write_manifest


def finished(workspace: Path, name: str, kept: int) -> None:
    folder = workspace / "shards" / name
    folder.mkdir(parents=True)
    write_manifest(
        folder, kind="shards", name=name, counts=Counts(seen=100, kept=kept, dropped={"timeout": 100 - kept})
    )


@pytest.mark.parametrize(
    ("today", "event"), [(60, None), (63, None), (40, "owl3.yield.changed"), (20, "owl3.yield.low")]
)
def test_a_yield_is_told_of_when_it_is_low_or_unlike_other_days(workspace: Path, today: int, event: str | None) -> None:
    for day, kept in ((19, 61), (20, 60), (21, 59)):
        finished(workspace, f"web-2026-11-{day}", kept)
    finished(workspace, "website", 5)  # another set, not a day of this one
    finished(workspace, "web-2026-11-22", today)
    found = judge_yield(workspace, "web-2026-11-22", at_least=0.3)
    assert found is not None
    assert found.event == event
    assert found.history == (0.61, 0.60, 0.59)


def test_a_first_day_has_no_history_to_differ_from(workspace: Path) -> None:
    finished(workspace, "web", 40)
    found = judge_yield(workspace, "web")
    assert found is not None and found.event is None


def test_an_unfinished_set_has_no_yield_yet(workspace: Path) -> None:
    assert judge_yield(workspace, "web") is None

"""A damaged workspace: every verb that answers for it says in one line which file is to blame, and answers nothing.

A table that is missing must never become "nothing in the workspace holds it".
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from owl3.cli import main

from .conftest import url

ROWS, BUILT, PLAN, RUN = "shards/tiny", "samples/pairs", "plans/toy/pretrain", "runs/toy/pretrain"


def _noise(path: Path) -> None:
    path.write_bytes(os.urandom(300))


def _noise_of_the_same_size(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _no_json(path: Path) -> None:
    path.write_text("{")


def _a_list(path: Path) -> None:
    path.write_text("[]")


def _a_key_more(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colour": "blue"}))


DAMAGE: list[tuple[str, Callable[[Path], None], str]] = [
    (f"{ROWS}/00001.parquet", Path.unlink, "missing"),
    (f"{ROWS}/00000.parquet", Path.unlink, "missing"),
    (f"{ROWS}/00000.parquet", _cut, "bytes, where its manifest says"),
    (f"{ROWS}/00000.parquet", _noise_of_the_same_size, "can't be read, it is damaged"),
    (f"{BUILT}/00000.parquet", Path.unlink, "missing"),
    (f"{ROWS}/manifest.json", _no_json, "not readable as JSON"),
    (f"{ROWS}/manifest.json", _a_list, "not a manifest"),
    (f"{PLAN}/order.npy", _noise, "damaged or cut off"),
    (f"{PLAN}/steps.npy", Path.unlink, "missing"),
    (f"{PLAN}/plan.json", _no_json, "damaged or cut off"),
    (f"{PLAN}/manifest.json", _a_key_more, "colour: Extra inputs are not permitted"),
]


@pytest.mark.parametrize(
    "verb", [["trace", url(3)], ["retract", "--url", url(3)], ["report"]], ids=lambda verb: verb[0]
)
@pytest.mark.parametrize(("place", "damage", "told"), DAMAGE, ids=range(len(DAMAGE)))
def test_a_damaged_file_is_named_and_nothing_is_answered(
    place: str,
    damage: Callable[[Path], None],
    told: str,
    verb: list[str],
    workspace: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    damage(workspace / place)
    assert main([*verb, "--workspace", str(workspace), "--json"]) == 2
    captured = capfd.readouterr()
    *_, line = captured.err.splitlines()
    assert line.startswith(f"owl3: {workspace / place}: ")
    assert told in line
    assert captured.out == ""


@pytest.mark.parametrize(
    ("place", "damage", "told"),
    [
        (f"{RUN}/metrics.jsonl", _noise, "not a metrics file"),
        (f"{RUN}/evals/end/scenes-single-0123/summary.json", _no_json, "not readable as JSON"),
        ("tombstones.parquet", _noise, "can't be read, it is damaged"),
    ],
)
def test_a_report_names_a_damaged_file_of_a_run(
    place: str,
    damage: Callable[[Path], None],
    told: str,
    workspace: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    damage(workspace / place)
    assert main(["report", "--workspace", str(workspace)]) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith(f"owl3: {workspace / place}: {told}")


def test_a_table_of_an_artifact_that_is_still_made_is_asked_as_it_is(workspace: Path) -> None:
    """Curation under way has no manifest yet."""
    (workspace / ROWS / "manifest.json").unlink()
    (workspace / ROWS / "00001.parquet").unlink()
    assert main(["trace", url(3), "--workspace", str(workspace)]) == 0


def test_a_folder_that_may_not_be_read_is_told(workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Else `glob` takes it for empty, and nothing in the workspace would hold anything."""
    is_root = os.geteuid() == 0  # who may read everything: it becomes somebody else
    for folder in (workspace, *workspace.parents) if is_root else ():
        if folder.stat().st_uid == 0 and folder != Path(folder.anchor):
            folder.chmod(folder.stat().st_mode | 0o055)
    (workspace / "shards").chmod(0o700 if is_root else 0)
    if is_root:
        os.seteuid(65534)
    try:
        code = main(["trace", url(3), "--workspace", str(workspace)])
    finally:
        if is_root:
            os.seteuid(0)
        (workspace / "shards").chmod(0o700)
    assert code == 2
    assert capfd.readouterr().err == (
        f"owl3: {workspace / 'shards'}: Permission denied; give this user the right to it\n"
    )

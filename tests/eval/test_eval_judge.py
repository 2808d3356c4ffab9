"""Judges: any callable, asked once per answer, whatever happens in between."""

import json
from pathlib import Path

import pytest

from owl3.cli import main
from owl3.errors import InputError, Owl3Error
from owl3.eval.items import Record
from owl3.eval.judge import Query, judge_result
from owl3.eval.registry import find_task
from owl3.eval.results import summarise, write_result
from owl3.manifest import read_manifest, verify_files


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """Three answers to MM-Vet, and a question whose picture was missing."""
    task, folder = find_task("mmvet"), tmp_path / "mmvet-5e6f"
    folder.mkdir()
    rows = [("v1", "a cat", ["rec"]), ("v2", "14", ["ocr", "math"]), ("v3", "a dog", ["rec", "ocr"])]
    records = [
        Record(
            name, name, "", "<image>\nWhat?", said, said, "strict", (), None, meta={"gold": "a cat", "capability": can}
        )
        for name, said, can in rows
    ]
    lost = Record("v4", "v4", "", "<image>\nWhat?", "", None, "failed", (), None, "media_missing: v4.jpg")
    summary = summarise(task, [], [*records, lost])
    write_result(folder, name="mmvet", settings={}, summary=summary, records=[*records, lost], timing={})
    return folder


def test_verdicts_are_averaged_over_all_and_by_capability(result: Path) -> None:
    asked: list[Query] = []

    def grade(query: Query) -> float:
        asked.append(query)
        return float(query.answer == query.gold)

    summary = judge_result(result, "mine:grade", grade)
    assert asked[0] == Query("v1", "<image>\nWhat?", "a cat", "a cat")
    assert summary["figures"] == {
        "judged": pytest.approx(1 / 3, abs=1e-6),
        "judged_math": 0.0,
        "judged_ocr": 0.0,
        "judged_rec": 0.5,
    }
    folder = result / "judged-mine-grade"
    manifest = read_manifest(folder)
    assert verify_files(folder, manifest) == []
    assert manifest.counts.dropped == {"not_answered": 1}
    assert judge_result(result, "mine:grade", grade) == summary
    assert len(asked) == 3
    assert verify_files(result, read_manifest(result)) == []  # what was judged is as it was


def test_a_judge_that_dies_is_asked_only_for_what_is_missing(result: Path) -> None:
    asked: list[str] = []

    def dies(query: Query) -> float:
        asked.append(query.id)
        if len(asked) == 2:
            raise ConnectionError("the server went away")
        return 1.0

    with pytest.raises(ConnectionError):
        judge_result(result, "mine:grade", dies)
    assert judge_result(result, "mine:grade", dies)["figures"]["judged"] == 1.0
    assert asked == ["v1", "v2", "v2", "v3"]


def test_a_verdict_outside_of_0_to_1_is_refused(result: Path) -> None:
    with pytest.raises(InputError, match=r"v1: the judge gave 7.0"):
        judge_result(result, "mine:grade", lambda _: 7.0)


def test_the_command_loads_a_judge_from_where_one_works(
    result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lenient_judge.py").write_text("def grade(query):\n    return 0.5\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    assert main(["judge", str(result), "--by", "lenient_judge:grade", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["figures"]["judged"] == 0.5
    for name, why in (("no_such_judge:grade", "No module named"), ("lenient_judge", "write it as package.module")):
        assert main(["judge", str(result), "--by", name]) == Owl3Error.exit_code
        assert why in capsys.readouterr().err

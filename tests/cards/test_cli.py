"""The verbs: what they print, and which exit code tells what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from owl3.cli import main

from .conftest import url
from .forge import flip_byte


@pytest.fixture
def owl3(workspace: Path, datacards: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str) -> tuple[int, Any]:
        code = main([*arguments, "--workspace", str(workspace), "--json"])
        lines = capsys.readouterr().out.splitlines()
        return code, json.loads(lines[-1]) if lines and code in (0, 1) else None

    return run


def test_an_audit_that_holds_is_0_and_one_that_does_not_is_1(owl3: Any, workspace: Path, datacards: Path) -> None:
    code, data = owl3("audit", "demo", "--datacards", str(datacards))
    assert (code, data["passed"], data["first_false"]) == (0, True, None)
    flip_byte(workspace / "shards" / "tiny" / "00001.tar")
    code, data = owl3("audit", "demo/1.0.0", "--datacards", str(datacards))
    assert code == 1
    assert "shards tiny 00001.tar" in data["first_false"]


def test_an_audit_against_another_digest_is_1(owl3: Any, datacards: Path) -> None:
    code, data = owl3("audit", "demo", "--datacards", str(datacards), "--expect", "0123456789abcdef")
    assert code == 1
    assert data["first_false"].startswith("documents: digest")


def test_a_sampled_audit_states_its_confidence(owl3: Any, datacards: Path) -> None:
    code, data = owl3("audit", "demo", "--datacards", str(datacards), "--sample", "0.5")
    assert code == 0
    assert "95% confidence" in data["statement"]


def test_wrong_input_is_2(owl3: Any, datacards: Path) -> None:
    assert owl3("audit", "nobody", "--datacards", str(datacards))[0] == 2
    assert owl3("retract", "--reason", "x")[0] == 2
    assert owl3("trace", "toy/nowhere@3")[0] == 2


def test_cards_of_the_workspace_are_found_without_being_told(
    owl3: Any, workspace: Path, datacards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`owl3 run` puts cards below the workspace: there a trace and a retraction name them, and an audit finds them."""
    datacards.rename(workspace / "datacards")
    monkeypatch.chdir(tmp_path)
    assert [card["name"] for card in owl3("trace", url(3))[1]["cards"]] == ["demo/1.0.0"]
    assert [card["name"] for card in owl3("retract", "--url", url(3))[1]["cards"]] == ["demo/1.0.0"]
    assert owl3("audit", "demo")[0] == 0


def test_a_card_that_only_the_working_folder_has_is_taken_from_there(
    owl3: Any, workspace: Path, datacards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace / "datacards" / "other").mkdir(parents=True)
    beside = tmp_path / "work"
    beside.mkdir()
    datacards.rename(beside / "datacards")
    monkeypatch.chdir(beside)
    assert owl3("audit", "demo")[0] == 0


def test_a_trace_and_a_dry_retraction_tell_the_same(owl3: Any) -> None:
    _, traced = owl3("trace", url(3))
    _, shown = owl3("retract", "--url", url(3))
    assert traced["found"]
    assert [hit["plan"] for hit in traced["plans"]] == [hit["plan"] for hit in shown["plans"]]
    assert shown["buried"] == 0


def test_a_retraction_is_carried_out_by_commands(owl3: Any) -> None:
    code, done = owl3("retract", "--url", url(3), "--reason", "asked", "--yes", "--purge", "--rerun", "toy=toy-2")
    assert code == 0
    assert done["buried"] == 2
    assert [entry["removed"] for entry in done["purged"]] == [0, 1, 0, 1]  # source, shards, tokenizer, samples
    assert (done["left"], done["others"]) == ([], [])
    assert [entry["resume_from"] for entry in done["rerun"]] == [2, 0]
    assert owl3("retract", "--remove-run", "toy", "--reason", "replaced")[1] == {"removed": []}
    assert owl3("retract", "--remove-run", "toy", "--reason", "replaced", "--yes")[1]["removed"]
    assert not owl3("trace", url(3))[1]["found"]


def test_what_still_says_it_is_an_error_when_it_is_ours(owl3: Any, workspace: Path, datacards: Path) -> None:
    (workspace / "logs").mkdir()
    (workspace / "logs" / "a.log").write_text(url(3))
    (workspace / "dump.csv").write_text(url(3))
    request = ("retract", "--url", url(3), "--reason", "asked", "--yes", "--purge", "--datacards", str(datacards))
    code, done = owl3(*request)
    assert (code, done["left"]) == (1, ["logs/a.log"])
    assert "dump.csv" in done["others"]
    assert any(path.endswith("1.0.0/card.html") for path in done["others"])  # a card elsewhere, whose grid shows it
    assert owl3(*request)[0] == 1  # it knows what it looked for
    (workspace / "logs" / "a.log").unlink()
    code, done = owl3(*request)
    assert (code, "dump.csv" in done["others"]) == (0, True)
    assert not (workspace / ".retracted.json").exists()


def test_metadata_stay_on_demand_and_only_with_a_purge(owl3: Any, workspace: Path) -> None:
    request = ("retract", "--url", url(3), "--reason", "asked", "--yes", "--keep-metadata")
    assert owl3(*request)[0] == 2
    assert not (workspace / "tombstones.parquet").exists()
    assert [entry["kind"] for entry in owl3(*request, "--purge")[1]["purged"]] == ["shards", "tokenizer", "samples"]
    assert owl3("trace", url(3))[1]["urls"][0]["url"] == url(3)


def test_a_rerun_that_is_not_named_writes_no_tombstone(owl3: Any, workspace: Path) -> None:
    assert owl3("retract", "--url", url(3), "--reason", "x", "--yes", "--rerun", "toy")[0] == 2
    assert not (workspace / "tombstones.parquet").exists()


def test_card_diff_report_rights_and_lineage_run(owl3: Any, datacards: Path, tmp_path: Path) -> None:
    assert owl3("card", "demo", "--diff", "demo/1.0.0", "--datacards", str(datacards))[1] == {"changes": []}
    assert owl3("card", "demo", "--run", "toy/sft", "--datacards", str(datacards))[0] == 0
    code, data = owl3("report", "--datacards", str(datacards), "--out", str(tmp_path / "pages"))
    assert code == 0
    assert Path(data["report"]).is_file()
    assert any(row["signal"] == "robots.txt" for row in owl3("rights")[1])
    assert owl3("lineage", "--file", str(tmp_path / "events.jsonl"))[1]["events"] == 8


def test_a_trace_of_many_says_how_many_it_does_not_list(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("owl3.cli.cards._LISTED", 3)
    assert main(["trace", "CC0-1.0", "--workspace", str(workspace)]) == 0
    out = capsys.readouterr().out
    total = int(out.split(" rows of URLs")[0].split()[-1])
    assert total > 3
    assert f"  … and {total - 3} more\n" in out

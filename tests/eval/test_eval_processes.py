"""Several processes answer one benchmark together: the result is the one that a single process gives."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from eval_oracle import Oracle
from hypothesis import given
from hypothesis import strategies as st

from owl3.cli import main
from owl3.eval.evaluate import Share, evaluate, load_items
from owl3.eval.items import Item
from owl3.eval.registry import find_task
from owl3.eval.results import PARTIAL_NAME, AnswerLog
from owl3.launch import run_ranks
from owl3.manifest import read_manifest, verify_files
from owl3.model.config import Owl3Config
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.model.processing import Owl3Processor
from owl3.tokens import train_tiny

TASK = find_task("scenes-single")
Make = Callable[[int], Path]


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 8))
def test_shares_hold_every_question_once(count: int, size: int, batch_size: int) -> None:
    items = [Item(str(number), (f"{'?' * (number % 3)}",)) for number in range(count)]
    shares = [Share(rank, size).part_of(items, batch_size) for rank in range(size)]
    assert sorted(item.id for share in shares for item in share) == sorted(item.id for item in items)


def together(bench: Path, out: Path, oracles: Sequence[Oracle]) -> None:
    """Each oracle in a thread of its own, as a rank."""
    threads = [
        threading.Thread(
            target=evaluate,
            args=(TASK, load_items(TASK, bench), oracle, out),
            kwargs={"settings": {}, "batch_size": 2, "share": Share(rank, len(oracles))},
        )
        for rank, oracle in enumerate(oracles)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_three_share_the_questions_and_leave_the_bytes_of_one(make_benchmark: Make, tmp_path: Path) -> None:
    bench = make_benchmark(17)
    oracles = [Oracle(), Oracle(), Oracle()]
    together(bench, tmp_path / "three" / "scenes-single", oracles)
    together(bench, tmp_path / "one" / "scenes-single", [Oracle()])
    folders = [tmp_path / name / "scenes-single" for name in ("three", "one")]
    assert len({read_manifest(folder).digest for folder in folders}) == 1
    assert verify_files(folders[0], read_manifest(folders[0])) == []
    assert all(oracle.asked for oracle in oracles)
    assert sorted(name for oracle in oracles for name in oracle.asked) == sorted(f"q{i}" for i in range(17))
    assert not list(folders[0].glob(".answers*"))


def test_answers_of_killed_ranks_are_kept_whatever_the_number_of_the_next(make_benchmark: Make, tmp_path: Path) -> None:
    bench, out = make_benchmark(6), tmp_path / "scenes-single"
    for rank, name in ((0, "q0"), (2, "q4")):
        log = AnswerLog(out, rank)
        log.add({name: "red"}, {})
        log.close()
    with (out / PARTIAL_NAME).open("ab") as torn:
        torn.write(b'{"id": "q1", "ra')
    oracles = [Oracle(), Oracle()]
    together(bench, out, oracles)
    assert sorted(name for oracle in oracles for name in oracle.asked) == ["q1", "q2", "q3", "q5"]


def test_a_rank_that_fails_ends_the_others_and_says_why(tmp_path: Path) -> None:
    """Rank 1 ends with 2; rank 0 would wait for ever."""
    (tmp_path / "part.py").write_text(
        "import os, sys, time\nsys.exit(2) if os.environ['RANK'] == '1' else time.sleep(600)\n"
    )
    script = "import sys; from owl3.launch import run_ranks; run_ranks('part', [], 2)"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert "InputError: part (rank 1 of 2; its reason stands above) ended with exit code 2" in done.stderr


def test_ranks_that_stand_apart_end_their_own_work_before_a_failure_is_told(tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text(
        "import os, sys, pathlib, time\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "if os.environ['RANK'] == '1': sys.exit(1)\n"
        "while not (folder / 'go').exists(): time.sleep(0.01)\n"
        "(folder / 'done').touch()\n"
    )
    script = "import sys; from owl3.launch import run_ranks; run_ranks('part', [], 2, apart=True)"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.PIPE, text=True)
    (tmp_path / "go").touch()
    _, told = process.communicate(timeout=60)
    assert (tmp_path / "done").is_file()
    assert "CheckFailed: part (rank 1 of 2; its reason stands above) ended with exit code 1" in told


def test_what_rank_0_says_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "says.py").write_text("import os\nprint(os.environ['RANK'], os.environ['WORLD_SIZE'])\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert run_ranks("says", [], 3) == "0 3\n"


@pytest.mark.processes
def test_two_real_processes_and_another_batch_size_give_the_same_digest(
    make_benchmark: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    tokenizer = train_tiny(["What colour? red green blue"], 400)
    config = Owl3Config.preset("tiny", text_config={"vocab_size": tokenizer.vocab_size}, initializer_range=0.2)
    model = tmp_path / "model"
    Owl3ForConditionalGeneration(config).save_pretrained(model)
    Owl3Processor.of(config, tokenizer).save_pretrained(model)
    bench = make_benchmark(9)
    found = []
    for name, options in (("one", ("1", "5")), ("two", ("2", "2"))):
        arguments = ["--processes", options[0], "--batch-size", options[1], "--out", str(tmp_path / name), "--json"]
        assert main(["eval", str(model), "--tasks", f"scenes-single={bench}", *arguments]) == 0
        report = json.loads(capsys.readouterr().out.splitlines()[-1])["tasks"]["scenes-single"]
        found.append((read_manifest(Path(report["folder"])).digest, report["figures"]))
    assert found[0] == found[1]

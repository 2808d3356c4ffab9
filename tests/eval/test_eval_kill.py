"""The queue under SIGKILL: whatever moment a worker dies at, the next one finishes, and nothing shows."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from eval_oracle import Oracle

from owl3.eval.queue import enqueue, pending, read_requests
from owl3.eval.runner import drain
from owl3.eval.settings import EvalConfig, TaskSetting
from owl3.manifest import read_manifest, verify_files

pytestmark = pytest.mark.processes

WORKER = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from eval_oracle import Oracle
from owl3.eval.runner import drain

class Dies(Oracle):
    left = int(sys.argv[4])
    def answer(self, shown, ask):
        if Dies.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        Dies.left -= 1
        return super().answer(shown, ask)

print(drain(Path(sys.argv[1]), Path(sys.argv[2]), load_answerer=lambda _: Dies()))
"""


def start(stage: Path, workspace: Path, batches: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", WORKER, str(stage), str(workspace), str(Path(__file__).parent), str(batches)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def make_stage(workspace: Path, name: str, bench: Path) -> Path:
    stage = workspace / "runs" / name / "sft"
    model = stage / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"w")
    tasks = (TaskSetting(name="scenes-single", folder=str(bench), blind="end"),)
    enqueue(stage, model, step=9, config=EvalConfig(tasks=tasks, batch_size=2), workspace=workspace, end=True)
    return stage


def digests(stage: Path) -> dict[str, str]:
    found = {}
    for request in read_requests(stage):
        folder = request.result_folder(stage)
        manifest = read_manifest(folder)
        assert verify_files(folder, manifest) == []
        found[request.result_name()] = manifest.digest
    return found


def test_killed_at_any_batch_it_ends_as_if_nothing_had_happened(
    workspace: Path, make_benchmark: Callable[[int], Path]
) -> None:
    bench = make_benchmark(8)
    whole = make_stage(workspace, "whole", bench)
    drain(whole, workspace, load_answerer=lambda _: Oracle())
    broken = make_stage(workspace, "broken", bench)
    for batches in (0, 1, 3):
        worker = start(broken, workspace, batches)
        assert worker.wait() == -signal.SIGKILL
        assert pending(broken)
    last = Oracle()
    left = len(pending(broken))
    assert drain(broken, workspace, load_answerer=lambda _: last) == (left, {})
    assert len(last.asked) < 16  # what was answered before a kill was not asked again
    assert digests(broken) == digests(whole)


def test_two_workers_at_once_do_everything_once(workspace: Path, make_benchmark: Callable[[int], Path]) -> None:
    bench = make_benchmark(8)
    stage = make_stage(workspace, "shared", bench)
    workers = [start(stage, workspace, 10**6) for _ in range(2)]
    assert [worker.wait() for worker in workers] == [0, 0]
    assert pending(stage) == []
    assert len(digests(stage)) == 2

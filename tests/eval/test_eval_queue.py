import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from owl3.errors import InputError
from owl3.eval.queue import (
    EVALS_NAME,
    Request,
    claim,
    enqueue,
    pending,
    processor_digest,
    read_requests,
    stage_dirs,
    weights_digest,
)
from owl3.eval.settings import EvalConfig, TaskSetting

CONFIG = EvalConfig(
    tasks=(
        TaskSetting(name="scenes-single", folder="held/single", checkpoint_limit=5),
        TaskSetting(name="scenes-multi", folder="held/multi-8", label="scenes-multi-8", blind="never"),
    )
)


def make_model(folder: Path, weights: bytes = b"w") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def leave_requests(workspace: Path, **options: Any) -> Path:
    stage = workspace / "runs" / "demo" / "sft"
    model = make_model(stage / "checkpoints" / "step-000010" / "model")
    enqueue(stage, model, step=10, config=CONFIG, workspace=workspace, **options)
    return stage


def test_a_checkpoint_asks_once_for_each_task(workspace: Path) -> None:
    stage = leave_requests(workspace)
    leave_requests(workspace)
    requests = read_requests(stage)
    assert [(r.title, r.limit, r.blind) for r in requests] == [
        ("scenes-multi-8", None, False),
        ("scenes-single", 5, False),
    ]
    assert all(r.model == "checkpoints/step-000010/model" for r in requests)


def test_the_end_of_a_stage_asks_in_full_and_blind(workspace: Path) -> None:
    stage = leave_requests(workspace, end=True)
    asked = [(r.title, r.limit, r.blind) for r in read_requests(stage)]
    assert asked == [("scenes-multi-8", None, False), ("scenes-single", None, False), ("scenes-single", None, True)]
    assert {r.checkpoint for r in read_requests(stage)} == {"end"}


def test_new_weights_version_or_limit_is_a_new_key_and_batch_size_is_not(workspace: Path) -> None:
    request = read_requests(leave_requests(workspace))[0]
    same = request.model_copy(update={"batch_size": 99, "model": "elsewhere", "folder": "/other"})
    assert same.key == request.key
    for change in ({"weights": "x"}, {"task_version": "2"}, {"processor": "x"}, {"limit": 7}, {"blind": True}):
        assert request.model_copy(update=change).key != request.key


def test_an_incomplete_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        weights_digest(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="still being written"):
        weights_digest(tmp_path)
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "one.safetensors").write_bytes(b"1")
    with pytest.raises(InputError, match=r"two\.safetensors is missing"):
        weights_digest(tmp_path)
    (tmp_path / "two.safetensors").write_bytes(b"2")
    before = weights_digest(tmp_path), processor_digest(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert weights_digest(tmp_path) == before[0]
    assert processor_digest(tmp_path) != before[1]


def finish(stage: Path, request: Request) -> None:
    folder = request.result_folder(stage)
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")


def test_only_one_worker_holds_a_request_and_a_done_one_is_held_by_none(workspace: Path) -> None:
    stage = leave_requests(workspace)
    first, second = read_requests(stage)
    with claim(stage, first) as mine:
        assert mine
        with claim(stage, first) as theirs, claim(stage, second) as other:
            assert not theirs
            assert other
    finish(stage, first)
    with claim(stage, first) as again:
        assert not again
    assert pending(stage) == [second]


HOLDER = """
import sys, time
from pathlib import Path
from owl3.eval.queue import claim, read_requests
stage = Path(sys.argv[1])
with claim(stage, read_requests(stage)[0]) as mine:
    print("held" if mine else "refused", flush=True)
    sys.stdin.read()
"""


@pytest.mark.processes
def test_a_claim_ends_with_the_process_that_holds_it_however_it_dies(workspace: Path) -> None:
    stage = leave_requests(workspace)
    request = read_requests(stage)[0]
    command = [sys.executable, "-c", HOLDER, str(stage)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    # A clock far in the future frees nothing: a claim is no lease.
    for path in (stage / EVALS_NAME / "locks").iterdir():
        os.utime(path, (0, 0))
    with claim(stage, request) as mine:
        assert not mine
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.communicate()
    with claim(stage, request) as mine:
        assert mine


def test_a_run_or_one_of_its_stages_can_be_named(workspace: Path) -> None:
    run = workspace / "runs" / "demo"
    for name in ("pretrain", "sft"):
        (run / name / EVALS_NAME).mkdir(parents=True)
    (run / "other").mkdir()
    assert [path.name for path in stage_dirs(run)] == ["pretrain", "sft"]
    assert stage_dirs(run / "sft") == [run / "sft"]


def test_two_tasks_of_one_name_need_labels() -> None:
    setting = TaskSetting(name="scenes-multi", folder="a")
    with pytest.raises(ValueError, match="give one of them a label"):
        EvalConfig(tasks=(setting, setting.model_copy(update={"folder": "b"})))

"""Checkpoints: whole or absent, checked before use, readable by any engine."""

import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from owl3.errors import InputError, Interrupted
from owl3.manifest import read_manifest
from owl3.train import checkpoint as checkpoint_module
from owl3.train.checkpoint import state_reader
from owl3.train.loop import train
from train.toy import alone, toy_engine, toy_run, toy_stage


def trained(folder: Path) -> Path:
    """A toy run of six steps with checkpoints after 2, 4 and 6."""
    run, state = toy_run(folder)
    train(run, state)
    return folder / "checkpoints"


@pytest.mark.parametrize("file", ["model/model.safetensors", "state/rank-00000-000.safetensors", "trainer.json"])
def test_one_changed_byte_sends_resuming_back_to_the_checkpoint_before(
    tmp_path: Path, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = trained(tmp_path)
    path = checkpoints / "step-000006" / file
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    _, state = toy_run(tmp_path)
    assert state.step == 4
    assert "content differs from its manifest; going back" in caplog.text
    assert (checkpoints / "step-000006.damaged").is_dir()


def test_a_checkpoint_without_manifest_is_not_one(tmp_path: Path) -> None:
    checkpoints = trained(tmp_path)
    (checkpoints / "step-000006" / "manifest.json").unlink()
    assert toy_run(tmp_path)[1].step == 4


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = trained(tmp_path)
    (checkpoints / ".step-000008.partial" / "state").mkdir(parents=True)
    assert toy_run(tmp_path)[1].step == 6
    assert not (checkpoints / ".step-000008.partial").exists()
    assert "was being written when the run stopped" in caplog.text


def test_a_checkpoint_that_saw_samples_which_were_retracted_since_is_put_aside(tmp_path: Path) -> None:
    checkpoints = trained(tmp_path)
    _, state = toy_run(tmp_path, follows=False)
    assert state.step == 0
    aside = {"step-000002.other-plan", "step-000004.other-plan", "step-000006.other-plan"}
    assert {path.name for path in checkpoints.iterdir()} == aside


@pytest.mark.parametrize("part", ["save_file", "write_model"])
def test_no_space_left_keeps_the_checkpoint_before_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    run, state = toy_run(tmp_path, total_steps=2)
    state = train(run, state)

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_module, part, full)
    run.total_steps = 4
    with pytest.raises(Interrupted, match=r"rank 0 could not save step 4 .*No space left.*earlier checkpoints are"):
        train(run, state)
    assert toy_run(tmp_path)[1].step == 2
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000002"]


def test_checkpoints_written_beside_training_are_those_written_between_steps(tmp_path: Path) -> None:
    finals = []
    for name, beside in (("between", False), ("beside", True)):
        run, state = toy_run(tmp_path / name, toy_stage(save_async=beside))
        asked: list[int] = []
        run.on_checkpoint = lambda path, step, asked=asked: asked.append(step)  # type: ignore[misc]
        finals.append(train(run, state))
        assert asked == [2, 4, 6]
    assert finals[0] == finals[1]  # the history holds the digest of the weights at every checkpoint
    for step in (2, 4, 6):
        one, other = (
            read_manifest(tmp_path / name / "checkpoints" / f"step-{step:06d}") for name in ("between", "beside")
        )
        assert one.files == other.files


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, state = toy_run(tmp_path, toy_stage(save_async=True))
    may_write = threading.Event()
    write_model = checkpoint_module.write_model

    def slow(*arguments: Any) -> str:
        assert may_write.wait(60)
        return write_model(*arguments)

    monkeypatch.setattr(checkpoint_module, "write_model", slow)
    seen: dict[int, bool] = {}

    def log(record: Mapping[str, Any]) -> None:
        seen[record["step"]] = run.checkpoints.is_writing
        if record["step"] == 3:
            may_write.set()

    run.log = log
    train(run, state)
    assert seen[3], "step 3 was taken while the checkpoint of step 2 was on its way"
    assert [path.name for path in run.checkpoints.all()] == ["step-000002", "step-000004", "step-000006"]


def test_no_space_left_beside_training_ends_the_run_at_the_next_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, state = toy_run(tmp_path, toy_stage(save_async=True))

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_module, "save_file", full)
    with pytest.raises(Interrupted, match=r"could not save step 2 .*No space left"):
        train(run, state)
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize("beside", [False, True])
def test_a_failure_that_nobody_thought_of_leaves_no_checkpoint_without_its_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    run, state = toy_run(tmp_path, toy_stage(save_async=beside))

    def fail(*arguments: object, **options: object) -> None:
        raise MemoryError("cannot allocate")

    monkeypatch.setattr(checkpoint_module, "save_file", fail)
    with pytest.raises(MemoryError, match="cannot allocate"):
        train(run, state)
    assert not run.checkpoints.all()


def test_a_disk_on_which_nothing_can_be_begun_is_said_in_one_line(tmp_path: Path) -> None:
    run, state = toy_run(tmp_path)
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(Interrupted, match=r"rank 0 could not save step 2 \(.*(Not a directory|File exists)"):
        train(run, state)


def test_the_newest_checkpoint_is_the_one_with_the_highest_number(tmp_path: Path) -> None:
    checkpoints = toy_run(tmp_path)[0].checkpoints
    for step in (999_999, 1_000_000, 20_000_000):
        checkpoints.path(step).mkdir(parents=True)
    (checkpoints.folder / "step-000007.damaged").mkdir()
    assert checkpoints.all() == [checkpoints.path(step) for step in (999_999, 1_000_000, 20_000_000)]


def test_an_old_checkpoint_that_cannot_be_removed_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run, state = toy_run(tmp_path, limit=1)
    remove = shutil.rmtree

    def busy(path: Path, **options: Any) -> None:
        if path.name == ".step-000002.partial" and (path / "manifest.json").exists():
            raise OSError(39, "Directory not empty")
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", busy)
    assert train(run, state).step == 6
    assert "step-000002.partial: could not be removed" in caplog.text
    monkeypatch.undo()
    assert toy_run(tmp_path)[1].step == 6
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000006"]


def test_state_of_other_parameters_is_refused_by_name(tmp_path: Path) -> None:
    checkpoints = trained(tmp_path)
    engine, _ = toy_engine(toy_stage(trainable=["projector", "language_model", "vision_model"]), alone())
    with pytest.raises(InputError, match=r"holds no vision_model\.embeddings\.weight:master"):
        engine.load_state(state_reader(checkpoints / "step-000006"), 6)


def test_a_checkpoint_holds_every_tensor_frozen_ones_too(tmp_path: Path) -> None:
    run, state = toy_run(tmp_path)
    train(run, state)
    from safetensors.torch import load_file

    stored = load_file(tmp_path / "checkpoints" / "step-000006" / "model" / "model.safetensors")
    live = run.engine.model.state_dict()
    assert stored.keys() == live.keys()
    assert all(torch.equal(stored[name], live[name]) for name in live)

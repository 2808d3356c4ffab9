"""What of DeepSpeed's start can be tried without ranks; its training is tried in test_ranks and test_run."""

from pathlib import Path

import pytest


def test_a_lock_that_a_killed_process_left_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own lock is a file: whoever is killed while it loads the op would end all training on the machine."""
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    from owl3.train import deepspeed_engine

    left = tmp_path / "torch-extensions" / "deepspeed_shm_comm" / "lock"
    left.parent.mkdir(parents=True)
    left.touch()
    monkeypatch.setenv("OWL3_TOOLS_DIR", str(tmp_path))
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "torch-extensions"))
    found: list[bool] = []
    monkeypatch.setattr(ShareMemCommBuilder, "load", lambda self, verbose: found.append(left.exists()))
    deepspeed_engine._load_communication()
    assert ShareMemCommBuilder().name == left.parent.name
    assert found == [False]


def test_a_folder_of_operations_that_is_not_ours_keeps_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    from owl3.train import deepspeed_engine

    others = tmp_path / "deepspeed_shm_comm" / "lock"
    others.parent.mkdir()
    others.touch()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr(ShareMemCommBuilder, "load", lambda self, verbose: None)
    deepspeed_engine._load_communication()
    assert others.exists()


def test_what_deepspeed_tells_at_its_start_is_shown_only_where_it_fails(capsys: pytest.CaptureFixture[str]) -> None:
    from owl3.train import deepspeed_engine

    with deepspeed_engine._told_only_if_it_fails():
        print("of its memory")
    assert capsys.readouterr() == ("", "")
    with pytest.raises(ValueError, match="no"), deepspeed_engine._told_only_if_it_fails():
        print("of its memory")
        raise ValueError("no")
    assert capsys.readouterr() == ("", "of its memory\n")

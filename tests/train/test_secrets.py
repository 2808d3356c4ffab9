"""What a training process knows of passwords and tokens stays out of all that it writes."""

import logging
from pathlib import Path

import pytest
import torch

from owl3.train.distributed import World
from owl3.train.metrics import METRICS_NAME
from owl3.train.run import Where, run_stage
from owl3.train.watch import Watch
from train.world import make_world, recipe

SECRETS = {
    "HF_TOKEN": "hf_planted0123456789",
    "AWS_SECRET_ACCESS_KEY": "planted/aws+key/0123456789",
    "WANDB_API_KEY": "planted0wandb0key",
    "HTTPS_PROXY": "http://anna:plantedproxy@proxy.test:3128",
}


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def files_that_hold(folder: Path, words: str) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [str(path) for path in files if words.encode() in path.read_bytes()]


def test_nothing_that_a_stage_leaves_holds_a_secret_of_its_environment(
    tmp_path: Path, planted: None, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Manifest, run.json, metrics, checkpoints and their trainer state, the export; and what it said meanwhile."""
    caplog.set_level(logging.DEBUG)
    made = recipe()
    make_world(tmp_path, made)
    run_stage(made, "pretrain", Where(tmp_path, {}))
    assert (tmp_path / "runs" / "tiny" / "pretrain" / METRICS_NAME).is_file()
    out, err = capfd.readouterr()
    for value in (*SECRETS.values(), "plantedproxy"):
        assert files_that_hold(tmp_path, value) == []
        assert value not in caplog.text + out + err


def test_the_note_of_a_rank_that_failed_holds_no_secret(tmp_path: Path, planted: None) -> None:
    signed = "https://bucket.test/00007.tar?X-Amz-Signature=plantedsignature&X-Amz-Expires=60"
    with pytest.raises(OSError, match="403"), Watch(tmp_path, World(1, 2, 1, torch.device("cpu")), 60.0) as watch:
        watch("load", 3, [(0, ("sample-3-0",))])
        raise OSError(f"{signed}: 403 with token {SECRETS['HF_TOKEN']}")
    note = (tmp_path / "ranks" / "rank-00001.json").read_text()
    assert "sample-3-0" in note
    assert "bucket.test/00007.tar" in note
    assert "plantedsignature" not in note
    assert SECRETS["HF_TOKEN"] not in note

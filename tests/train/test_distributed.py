"""Who this process is among the others, and what is wrong with the place it was started in."""

import socket
from pathlib import Path

import pytest
import torch

from owl3.errors import ConfigError, Interrupted
from owl3.train import distributed
from owl3.train.distributed import World, ranks_in
from owl3.train.run import Where, run_stage
from train.world import make_world, recipe


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int, size: int, port: int = 1) -> None:
    variables = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for key, value in variables.items():
        monkeypatch.setenv(key, str(value))


def test_torchrun_and_slurm_say_who_we_are_and_without_them_we_are_alone() -> None:
    assert ranks_in({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}) == (3, 8, 1)
    assert ranks_in({"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}) == (3, 8, 1)
    assert ranks_in({}) == (0, 1, 0)


def test_a_rank_outside_its_world_is_refused() -> None:
    with pytest.raises(ConfigError, match="RANK=8 does not fit WORLD_SIZE=8"):
        ranks_in({"RANK": "8", "WORLD_SIZE": "8"})


def test_a_world_that_does_not_divide_into_tensor_parallel_groups_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    as_rank(monkeypatch, 0, 6)
    with pytest.raises(ConfigError, match="world size 6 must be a multiple of tensor_parallel 4"):
        distributed.start(tensor_parallel=4)


def test_a_port_in_use_is_said_with_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        as_rank(monkeypatch, 0, 2, port)
        with pytest.raises(ConfigError, match=rf"MASTER_PORT = 127.0.0.1:{port}; is the port free"):
            distributed.start(timeout_s=2)


def test_ranks_with_different_recipes_end_before_anything_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 1 was started with another learning rate: what it tells in the first exchange differs."""
    made = recipe()
    make_world(tmp_path, made)

    class WithAnother(World):
        def gather(self, value: object) -> list[object]:  # type: ignore[override]
            other = value.replace(b"0.01", b"0.02") if isinstance(value, bytes) else value
            return [value, other]

    alone = WithAnother(0, 1, 0, torch.device("cpu"))
    monkeypatch.setattr(distributed, "start", lambda **options: alone)
    with pytest.raises(ConfigError, match="rank 1 has another recipe, plan, parent or --deepspeed-json than rank 0"):
        run_stage(made, "pretrain", Where(tmp_path, {}))
    assert not (tmp_path / "runs").exists()


def test_a_rank_that_is_left_waiting_outside_of_the_steps_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe()
    make_world(tmp_path, made)

    class Deserted(World):
        def gather(self, value: object) -> list[object]:  # type: ignore[override]
            raise RuntimeError("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4711\nBack")

    monkeypatch.setattr(distributed, "start", lambda **options: Deserted(1, 2, 1, torch.device("cpu")))
    with pytest.raises(Interrupted, match=r"rank 1: another rank ended, or was late .*Connection closed.*run again"):
        run_stage(made, "pretrain", Where(tmp_path, {}))

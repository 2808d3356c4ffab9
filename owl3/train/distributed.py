"""Ranks: who this process is, and the few things ranks tell one another besides gradients.

Started by `torchrun`, `deepspeed`, `srun` or not at all: one process is a world of one, without a port or a launcher.
Everything here travels over gloo on the CPU, also when gradients go over NCCL, because gloo has deadlines that raise.
"""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from owl3.errors import ConfigError
from owl3.ranks import ranks_in

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among the others. Tensor-parallel peers share rows; data-parallel ones split them."""

    rank: int
    size: int
    local_rank: int
    device: torch.device
    tensor_parallel: int = 1
    control: dist.ProcessGroup | None = None  # gloo; None in a world of one

    @property
    def data_rank(self) -> int:
        """Which share of a step's rows this rank takes; neighbours form a tensor-parallel group."""
        return self.rank // self.tensor_parallel

    @property
    def data_size(self) -> int:
        """Into how many shares a step's rows are split."""
        return self.size // self.tensor_parallel

    @property
    def is_main(self) -> bool:
        """Rank 0 writes what is written once."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """Exchange small Python values; every rank gets all of them, in rank order."""
        if self.control is None:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return values  # type: ignore[return-value]  # all_gather_object has filled every place

    def sum(self, values: list[float]) -> list[float]:
        """Add up float64 values over all ranks; the same order of addition on every rank, so the same bits."""
        if self.control is None:
            return values
        mine = torch.tensor(values, dtype=torch.float64)
        all_ranks = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(all_ranks, mine, group=self.control)
        return [float(total) for total in torch.stack(all_ranks).sum(0)]

    def barrier(self) -> None:
        """Wait until every rank is here; a rank that does not come within the deadline is named."""
        if self.control is not None:
            dist.monitored_barrier(group=self.control)


def start(*, tensor_parallel: int = 1, timeout_s: float = 600.0) -> World:
    """Join the process group of the launcher that started this process.

    Args:
        tensor_parallel: How many neighbouring ranks share one copy of the model.
        timeout_s: Deadline of every exchange; a rank missing after it ends the others with an error.

    Raises:
        ConfigError: when the world does not divide, or the rendezvous address is taken or cannot be reached.
    """
    rank, size, local_rank = ranks_in(os.environ)
    if size % tensor_parallel:
        raise ConfigError(f"world size {size} must be a multiple of tensor_parallel {tensor_parallel}")
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    timeout = timedelta(seconds=timeout_s)
    backend = "cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo"
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(local_rank))
    if size == 1:
        # An in-process store: no port to be taken by somebody else. DeepSpeed wants to see the variables nevertheless.
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", "0")
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1, timeout=timeout)
        return World(0, 1, local_rank, device, tensor_parallel)
    address = f"{os.environ.get('MASTER_ADDR', '')}:{os.environ.get('MASTER_PORT', '')}"
    try:
        dist.init_process_group(backend, timeout=timeout)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"rank {rank} of {size}: no process group at MASTER_ADDR:MASTER_PORT = {address}; "
            f"is the port free and reachable? ({' '.join(str(error).split())[:200]})"
        ) from error
    control = dist.new_group(backend="gloo", timeout=timeout)
    return World(rank, size, local_rank, device, tensor_parallel, control)


def stop() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()

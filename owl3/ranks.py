"""Which of several processes this one is, as the launcher that started them tells it."""

from collections.abc import Mapping

from owl3.errors import ConfigError


def ranks_in(environment: Mapping[str, str]) -> tuple[int, int, int]:
    """Read (rank, world size, local rank) as torchrun and deepspeed give them, else as Slurm does, else a world of one.

    Raises:
        ConfigError: when the variables contradict each other.
    """
    for rank_key, size_key, local_key in (
        ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
        ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
    ):
        if rank_key in environment and size_key in environment:
            rank, size = int(environment[rank_key]), int(environment[size_key])
            if not 0 <= rank < size:
                raise ConfigError(f"environment: {rank_key}={rank} does not fit {size_key}={size}")
            return rank, size, int(environment.get(local_key, "0"))
    return 0, 1, 0

"""Real ranks for tests: processes of their own that talk over gloo, as a launcher would start them.

They are forked from a server that has imported torch once: eight ranks start in a second instead of a minute.
"""

import multiprocessing
import os
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import Any

from torch.distributed import TCPStore

# A store that the test itself holds: a port that was free a moment ago may be another's when rank 0 listens on it.
_WITH_STORE = {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
_PRELOADED = ["torch", "transformers", "deepspeed", "train.toy", "train.model_ranks", "owl3.train.run"]


class Ranks:
    """A group of ranks that run one function; use it as a context, and nothing outlives it."""

    def __init__(self, function: Callable[..., Any], arguments: Sequence[Any], size: int) -> None:
        os.environ["DS_ACCELERATOR"] = "cpu"
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        self.processes: list[ForkServerProcess] = []
        self._pipes: list[Connection] = []
        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        for rank in range(size):
            mine, theirs = context.Pipe(duplex=False)
            variables = {
                "RANK": str(rank),
                "WORLD_SIZE": str(size),
                "LOCAL_RANK": str(rank),
                "MASTER_PORT": str(self._store.port),
                **_WITH_STORE,
            }
            process = context.Process(target=_enter, args=(function, list(arguments), variables, theirs))
            process.start()
            theirs.close()
            self.processes.append(process)
            self._pipes.append(mine)

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes:
            process.kill()
            process.join()

    def results(self, timeout_s: float = 150.0) -> list[Any]:
        """What every rank returned; None for one that died without a word.

        Raises:
            AssertionError: a rank raised (with its traceback), or did not end in time.
        """
        found: list[Any] = [None] * len(self._pipes)
        left = dict(zip(self._pipes, range(len(self._pipes)), strict=True))
        while left:
            ready = wait(list(left), timeout_s)
            assert ready, f"ranks {sorted(left.values())} did not end within {timeout_s} s"
            for pipe in ready:
                assert isinstance(pipe, Connection)
                rank = left.pop(pipe)
                try:
                    kind, value = pipe.recv()
                except EOFError:
                    continue
                assert kind == "result", f"rank {rank} raised:\n{value}"
                found[rank] = value
        return found


def run(function: Callable[..., Any], arguments: Sequence[Any], size: int) -> list[Any]:
    """Run ranks to their end and return what each returned."""
    with Ranks(function, arguments, size) as ranks:
        return ranks.results()


def _enter(function: Callable[..., Any], arguments: list[Any], variables: dict[str, str], pipe: Connection) -> None:
    os.environ.update(variables)
    try:
        pipe.send(("result", function(*arguments)))
    except BaseException:
        pipe.send(("raised", traceback.format_exc()))
        raise

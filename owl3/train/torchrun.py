"""`python -m owl3.train.torchrun`: torch's launcher, keeping two promises that it does not make by itself.

Ranks end with it: it starts each of them in a session of its own, where no signal to its group reaches them, so they
are told whom to watch. And it ends as its ranks did: with the exit code of the first one that failed instead of 1, and
with 3 after SIGTERM, which it passes on and gives them time to save after.

Takes what `torchrun` takes.
"""

import os
import sys
from collections.abc import Mapping, Sequence

from owl3 import lifeline

_LAUNCHER_PID = "OWL3_LAUNCHER_PID"
_EXIT_INTERRUPTED = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Launch, wait, and return the exit code that the command line promises."""
    lifeline.end_with_parent(os.getppid())
    os.environ[_LAUNCHER_PID] = str(os.getpid())
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    try:
        run(parse_args(list(sys.argv[1:] if arguments is None else arguments)))
    except SignalException:
        return _EXIT_INTERRUPTED
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else _EXIT_INTERRUPTED  # below 0: ended by a signal
    return 0


def end_with_launcher(environment: Mapping[str, str]) -> None:
    """Let a rank end with the torchrun that started it: ours or a person's own. A lone process is left alone.

    A rank of ours whose launcher died before it got here ends at once.
    """
    if _LAUNCHER_PID in environment:
        lifeline.end_with_parent(int(environment[_LAUNCHER_PID]))
    elif "TORCHELASTIC_RUN_ID" in environment:
        lifeline.end_with_parent()


if __name__ == "__main__":
    sys.exit(main())

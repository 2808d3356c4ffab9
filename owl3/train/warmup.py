"""Compile what DeepSpeed compiles at its first start, so that no run waits for it: `python -m owl3.train.warmup`.

On a machine without a GPU that is one small communication op: about 45 s with g++.
"""

import shutil
import sys

from owl3.errors import InputError, exit_code_of


def warm_up() -> None:
    """Build the op; a no-op when it is there."""
    if shutil.which("g++") is None:
        raise InputError("g++ not found: DeepSpeed needs it to compile its communication op; install it")
    from owl3.train.deepspeed_engine import compile_operations

    compile_operations()


if __name__ == "__main__":
    sys.exit(exit_code_of(warm_up))

"""Compile what DeepSpeed compiles at its first start, so that no run waits for it: `python -m owl3.train.warmup`.

On a machine without a GPU that is one small communication op: about 45 s with g++.
"""

import shutil
import sys

from owl3.errors import InputError, Owl3Error


def main() -> int:
    """Build the op; a no-op when it is there."""
    try:
        if shutil.which("g++") is None:
            raise InputError("g++ not found: DeepSpeed needs it to compile its communication op; install it")
        from owl3.train.deepspeed_engine import compile_operations

        compile_operations()
    except Owl3Error as error:
        sys.stderr.write(f"owl3: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

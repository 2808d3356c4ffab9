"""A flow that does next to nothing, and a process that serves it on a schedule: does it fire?"""

import sys
from datetime import timedelta
from pathlib import Path

from prefect import flow


@flow(log_prints=False)
def tick(folder: str) -> None:
    """Leave one more file."""
    path = Path(folder)
    (path / f"{len(list(path.iterdir()))}.tick").touch()


if __name__ == "__main__":
    # One run at a time, and not too often: each is a process of its own that takes seconds to start.
    tick.serve("ticking", interval=timedelta(seconds=5), parameters={"folder": sys.argv[1]}, limit=1)

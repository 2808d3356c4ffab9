"""Reading samples shuffled within shard groups against reading them front to back: from disk, and from an S3 server.

Nothing is decoded: a sample is found, read and parsed. The cache of a store holds one group of shards, less than there
is to read, as with a corpus that lies far away. Both orders take turns; every run begins with nothing cached.

The S3 server (moto) runs in this process on 127.0.0.1, so it slows both orders alike.
"""

import logging
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from owl3.data.ranges import LocalTars, RemoteTars, Tars
from owl3.data.reading import SampleReader
from owl3.planfile import Plan

_ROUNDS = 3
_BLOCK_BYTES = 1 << 20
_BUCKET = "samples"


def measure_access(workspace: Path, plan: Plan) -> dict[str, dict[str, float]]:
    """Samples per second in both orders, from local tars, through fsspec on the same disk, and from S3."""
    grouped = Plan.open(plan.folder.with_name("grouped"))
    tars = sorted(workspace.glob("samples/*/*.tar"))
    group_bytes = 2 * max(path.stat().st_size for path in tars) + 4 * _BLOCK_BYTES

    def far(url: str) -> Callable[[], Tars]:
        return lambda: RemoteTars(url, block_bytes=_BLOCK_BYTES, cache_bytes=group_bytes)

    _read_all(grouped, workspace, LocalTars(workspace), sorted(grouped.order.tolist()))  # into the disk's cache
    found = {
        "local disk": _compare(grouped, workspace, lambda: LocalTars(workspace)),
        "local disk through fsspec": _compare(grouped, workspace, far(workspace.absolute().as_uri())),
    }
    with s3_server() as environment, patch.dict(os.environ, environment):
        _upload(workspace, tars)
        found["S3 on 127.0.0.1"] = _compare(grouped, workspace, far(f"s3://{_BUCKET}"))
    return found


def _compare(plan: Plan, workspace: Path, open_tars: Callable[[], Tars]) -> dict[str, float]:
    shuffled = plan.order.tolist()
    orders: Mapping[str, Sequence[int]] = {"sequential": sorted(shuffled), "shuffled": shuffled}
    seconds: dict[str, list[float]] = {name: [] for name in orders}
    for _ in range(_ROUNDS):
        for name, order in orders.items():
            seconds[name].append(_read_all(plan, workspace, open_tars(), order))
    pairs = zip(seconds["shuffled"], seconds["sequential"], strict=True)
    return {
        **{f"{name}_per_s": round(len(shuffled) / statistics.median(taken), 1) for name, taken in seconds.items()},
        "ratio": round(statistics.median(far / near for far, near in pairs), 3),
    }


def _read_all(plan: Plan, workspace: Path, tars: Tars, order: Sequence[int]) -> float:
    """Seconds that reading these samples takes."""
    reader = SampleReader(plan, workspace, tars)
    began = time.perf_counter()
    for position in order:
        reader.read(position)
    taken = time.perf_counter() - began
    reader.close()
    return taken


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """An S3 server with an empty bucket on 127.0.0.1; yields the environment that lets s3fs find it."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # it would tell of every request
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        environment = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        with patch.dict(os.environ, environment):
            boto3.client("s3").create_bucket(Bucket=_BUCKET)
        yield environment
    finally:
        server.stop()


def _upload(workspace: Path, tars: Sequence[Path]) -> None:
    import boto3

    client = boto3.client("s3")
    for path in tars:
        client.upload_file(str(path), _BUCKET, path.relative_to(workspace).as_posix())

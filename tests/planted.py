"""Secrets that tests plant, and the search for them in whatever a program has left."""

import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq

VARIABLES = {
    "HF_TOKEN": "hf_planted0token",
    "AWS_SECRET_ACCESS_KEY": "planted/aws+secret",
    "AWS_SESSION_TOKEN": "planted-session",
    "PREFECT_API_KEY": "pnu_planted0key",
    "WANDB_API_KEY": "planted0wandb",
    "POSTGRES_PASSWORD": "planted-postgres",
    "HTTPS_PROXY": "http://someone:planted-proxy@127.0.0.1:9",
}
"""As people set them."""

WORDS = (*(value for name, value in VARIABLES.items() if name != "HTTPS_PROXY"), "planted-proxy")
"""What must be found nowhere."""

SIGNED_QUERY = "X-Amz-Credential=AKIAplanted&X-Amz-Expires=60&X-Amz-Signature=planted0signature"


def holding(folders: Iterable[Path], words: Iterable[str] = ("planted",)) -> Iterator[tuple[Path, str]]:
    """Every file below some folders that holds one of the words, in its name or its bytes."""
    sought = [word.encode() for word in words]
    for path in (path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()):
        data = path.name.encode() + _content(path)
        for word in sought:
            if word in data:
                yield path, word.decode()


def _content(path: Path) -> bytes:
    """Its bytes and, of a compressed table, what stands in it."""
    data = path.read_bytes()
    if data[:4] == b"PAR1":
        data += repr(pq.read_table(path).to_pydict()).encode()
    return data + (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else b"")

"""The ledger's views: over a folder and over object storage alike."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from owl3.errors import InputError
from owl3.ledger import connect, open_duckdb
from owl3.shards import write_table

ROWS = [{"sample_id": "a", "decision": "kept"}, {"sample_id": "b", "decision": "dropped"}]


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """Two shard artifacts; the second has a column of its own."""
    for name, extra in (("one", {}), ("two", {"src_score": 0.5})):
        write_table(tmp_path / "shards" / name / "00000.parquet", pa.Table.from_pylist([row | extra for row in ROWS]))
        write_table(tmp_path / "shards" / name / "00000_evidence.parquet", pa.Table.from_pylist([{"time": name}]))
    return tmp_path


QUESTION = "select artifact, sample_id, src_score from shard_rows where decision = 'kept' order by artifact"
ANSWER = [("one", "a", None), ("two", "a", 0.5)]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 server on 127.0.0.1 with one bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    values = {"ENDPOINT_URL": f"http://{host}:{port}", "ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s"}
    for key, value in (values | {"DEFAULT_REGION": "us-east-1", "EC2_METADATA_DISABLED": "true"}).items():
        monkeypatch.setenv(f"AWS_{key}", value)
    boto3.client("s3").create_bucket(Bucket="ledger")
    try:
        yield "ledger"
    finally:
        server.stop()


def test_views_join_artifacts_by_name_and_tell_them_apart(filled: Path) -> None:
    with connect(filled) as db:
        assert db.execute(QUESTION).fetchall() == ANSWER
        assert db.execute("select count(*) from evidence").fetchall() == [(2,)]


def test_a_ledger_in_object_storage_answers_in_place(filled: Path, bucket: str) -> None:
    import boto3

    for path in filled.rglob("*.parquet"):
        boto3.client("s3").upload_file(str(path), bucket, f"work/{path.relative_to(filled).as_posix()}")
    for workspace in (f"s3://{bucket}/work", Path(f"s3://{bucket}/work")):
        with connect(workspace, views=("shard_rows", "tombstones")) as db:
            assert db.execute(QUESTION).fetchall() == ANSWER
    with pytest.raises(InputError, match="no such workspace"):
        connect(f"s3://{bucket}/nowhere")


def test_what_is_no_workspace_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such workspace"):
        connect(tmp_path / "nowhere")


def test_what_a_query_spills_goes_where_no_other_process_writes() -> None:
    """Containers that share a folder for temporary files have the same process ids."""
    folders = set()
    for _ in range(2):
        with open_duckdb() as db:
            folders.add(db.execute("select current_setting('temp_directory')").fetchall()[0][0])
    assert len(folders) == 2
    assert not any(str(os.getpid()) in Path(folder).name.split("-") for folder in folders)

"""The whole chain with `--workspace s3://…`: another machine then finds it finished there, with the same digests."""

import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from demo.tiny import write_tiny_recipe
from moto.server import ThreadedMotoServer

from owl3.pipeline import digests
from owl3.remote import STAGING, opened

URL = "s3://owl3/demo"


@pytest.mark.processes
def test_the_chain_in_s3_leaves_the_digests_of_a_local_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = write_tiny_recipe(tmp_path / "tiny.yaml")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        values = {"ENDPOINT_URL": f"http://{host}:{port}", "ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "hush"}
        for key, value in (values | {"DEFAULT_REGION": "us-east-1", "EC2_METADATA_DISABLED": "true"}).items():
            monkeypatch.setenv(f"AWS_{key}", value)
        boto3.client("s3").create_bucket(Bucket="owl3")
        for workspace, staging in ((str(tmp_path / "local"), "none"), (URL, "one")):
            environment = {**os.environ, STAGING: str(tmp_path / staging)}
            command = [sys.executable, "-m", "owl3", "run", str(recipe), "--workspace", workspace]
            subprocess.run(command, env=environment, check=True)
        monkeypatch.setenv(STAGING, str(tmp_path / "another-machine"))
        with opened(Path(URL)) as folder:
            assert digests(folder) == digests(tmp_path / "local")
    finally:
        server.stop()

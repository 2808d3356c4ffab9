"""img2dataset's other distributors, where they are installed in its environment: the same bytes as with its own."""

import subprocess
from pathlib import Path

import pytest
from curate.hostile import hostile_server, picture

from owl3 import tools
from owl3.curate.config import CurateConfig
from owl3.curate.run import curate
from owl3.curate.sources.prepare import SourceConfig, prepare


def is_there(module: str) -> bool:
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([tools.python("img2dataset"), "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("distributor", ["ray", "pyspark"])
def test_a_distributor_leaves_the_same_bytes(distributor: str, tmp_path: Path) -> None:
    if not is_there(distributor):
        pytest.skip(f"needs {distributor} in the environment of img2dataset")
    digests = set()
    with hostile_server() as web:
        for number in range(12):
            web.page(f"/{number}.jpg", picture(number, (200, 150)))
        for kind in ("multiprocessing", distributor):
            workspace = tmp_path / kind
            workspace.mkdir()
            lines = [f"http://files.owl3.test/{number}.jpg,dog {number}" for number in range(12)]
            (workspace / "in.csv").write_text("\n".join(["url,caption", *lines]) + "\n")
            prepare(SourceConfig(name="s", files=("in.csv",)), workspace)
            given = {"fetch": {"allow_private_hosts": ["*.owl3.test"]}, "engine": {"distributor": kind}}
            given["engine"] |= {"number_sample_per_shard": 4, "thread_count": 8}
            config = CurateConfig.model_validate({"name": "s", "source": "s"} | given)
            manifest = curate(config, workspace, resolve={"*.owl3.test": f"127.0.0.1:{web.port}"})
            assert manifest.counts.kept == 12
            digests.add(manifest.digest)
    assert len(digests) == 1

"""What cannot live beside the rest lives apart: no backport in ours, img2dataset runs from its own."""

import subprocess
from importlib import metadata

import pytest

from owl3 import tools
from owl3.errors import ConfigError, InputError


@pytest.mark.parametrize("package", ["dataclasses", "img2dataset", "clip-retrieval", "torchvision"])
def test_what_breaks_prefect_or_transformers_is_not_in_our_environment(package: str) -> None:
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.version(package)


@pytest.mark.processes
def test_img2dataset_runs_from_its_own_environment() -> None:
    command = [
        str(tools.python("img2dataset")),
        "-c",
        "from importlib import metadata as m; print(m.version('img2dataset'))",
    ]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "1.47.0"


def test_a_tool_that_is_not_installed_says_how(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("OWL3_TOOLS_DIR", str(tmp_path))
    with pytest.raises(InputError, match="owl3 tools install img2dataset"):
        tools.python("img2dataset")


def test_an_unknown_tool_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match="img2dataset, clip"):
        tools.install("nonesuch")


def test_changed_requirements_make_an_environment_stale(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("OWL3_TOOLS_DIR", str(tmp_path))
    (tmp_path / "img2dataset").mkdir()
    (tmp_path / "img2dataset" / "installed").write_text("made from older requirements")
    assert not tools.is_installed("img2dataset")

"""The wheel carries all that the demo needs: installed into an empty environment, it runs `owl3 demo`.

Dependencies are those of this environment, laid beneath by path: what is tested is what is in the wheel.
"""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `owl3` of an environment that holds the wheel and nothing else of ours."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = folder.glob("owl3-0.1.0-*.whl")
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "env")}))
    (site / "beneath.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "env" / "bin" / "owl3"


def environment() -> dict[str, str]:
    """Ours, without the path by which a checkout may stand before the wheel."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return kept | {"OWL3_TOOLS_DIR": str(Path(sys.prefix) / "owl3-tools")}


def run(owl3: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(owl3), *arguments], env=environment(), cwd=owl3.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_it_is_the_installed_one_and_finds_recipes_facts_and_clusters(installed: Path) -> None:
    script = (
        "import owl3; from owl3.recipe import RECIPES; from owl3.pipeline import DATACARDS;"
        "import flows, pathlib; root = pathlib.Path(owl3.__file__).parent.parent;"
        "assert 'site-packages' in str(root);"
        "assert (RECIPES / 'demo.yaml').is_file() and (DATACARDS / 'demo' / 'facts.yaml').is_file();"
        "assert (root / 'infra' / 'clusters' / '8xH100.yaml').is_file() and (root / 'infra' / 'prefect.yaml').is_file()"
    )
    subprocess.run(
        [str(installed.with_name("python")), "-c", script], env=environment(), cwd=installed.parent, check=True
    )
    assert "0.1.0" in run(installed, "--version")
    assert "train sft" in run(installed, "demo", "--dry-run")


@pytest.mark.processes
def test_it_runs_the_demo(installed: Path, tmp_path: Path) -> None:
    assert "What the model can answer" in run(installed, "demo", "--workspace", str(tmp_path / "demo"))

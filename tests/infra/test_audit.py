"""`make audit-deps`: a service that does not answer is never taken for one that knows no hole."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SOUND = {"name": "sound", "version": "1.0", "vulns": []}
HOLLOW = {"name": "hollow", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"], "aliases": []}]}
UNASKED = {"name": "unasked", "skip_reason": "not found on PyPI"}


def audited(folder: Path, *answers: Any) -> "subprocess.CompletedProcess[str]":
    """Audit one file per answer, with something in pip-audit's place that gives it: a report, or a message."""
    files = []
    for number, answer in enumerate(answers):
        files.append(folder / f"{number}.txt")
        files[-1].write_text(json.dumps({"dependencies": answer}) if isinstance(answer, list) else "")
    fake = folder / "pip-audit"
    fake.write_text(
        f"#!{sys.executable}\nimport sys\ntext = open(sys.argv[2]).read()\n"
        "print(text) if text else sys.exit('Traceback\\nNameResolutionError: api.osv.dev')\n"
    )
    fake.chmod(0o755)
    command = [sys.executable, str(ROOT / "infra" / "audit.py"), str(fake), *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("answers", "code", "said"),
    [
        (([SOUND], [SOUND, SOUND]), 0, "2 packages, no known hole"),
        (([SOUND, HOLLOW],), 1, "hollow 1.0: PYSEC-1, mended in 1.1"),
        (([SOUND, UNASKED],), 3, "1 of 2 were not asked: not found on PyPI"),
        (("nobody answers", [SOUND]), 3, "pypi does not answer: NameResolutionError: api.osv.dev"),
        (([HOLLOW], "nobody answers"), 1, "PYSEC-1"),
        (([],), 3, ""),
    ],
)
def test_the_worst_that_was_found_decides(answers: tuple[Any, ...], code: int, said: str, tmp_path: Path) -> None:
    done = audited(tmp_path, *answers)
    assert done.returncode == code
    assert said in done.stdout + done.stderr
    assert ("make audit-deps AUDIT_OPTIONS" in done.stderr) == (code == 3 or "nobody answers" in answers)


def test_everything_that_is_installed_is_audited() -> None:
    [command] = [line for line in (ROOT / "Makefile").read_text().splitlines() if "infra/audit.py" in line]
    tools = {f"owl3/tools/{path.name}" for path in (ROOT / "owl3" / "tools").glob("*.txt")}
    assert tools | {"constraints.txt"} <= set(command.split())

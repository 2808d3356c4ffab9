"""`owl3 doctor` names what is missing and how to mend it."""

from pathlib import Path

import pytest

from owl3 import doctor


def found(workspace: Path) -> dict[str, doctor.Finding]:
    return {finding.check: finding for finding in doctor.examine(workspace)}


def test_everything_that_is_missing_comes_with_a_remedy(tmp_path: Path) -> None:
    findings = found(tmp_path)
    assert {
        "python",
        "torch",
        "disk",
        "workspace",
        "memory",
        "open files",
        "port 4200",
        "GPU",
        "Prefect server",
    } <= set(findings)
    assert all(finding.remedy for finding in findings.values() if not finding.ok)


def test_a_prefect_server_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    finding = found(tmp_path)["Prefect server"]
    assert not finding.ok
    assert "http://127.0.0.1:9/api" in finding.found and "unset PREFECT_API_URL" in finding.remedy


def test_a_driver_that_fails_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "nvidia-smi"
    broken.write_text("#!/bin/sh\nexit 9\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    finding = found(tmp_path)["GPU"]
    assert not finding.ok and "nvidia-smi fails" in finding.found


def test_a_workspace_that_takes_no_files_is_found_out_by_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", _full)
    assert not found(tmp_path)["workspace"].ok


def _full(**_: object) -> None:
    raise OSError(28, "No space left on device")

"""What can be checked of the infrastructure without a cluster: files parse, commands and entry points exist."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from owl3.cli import build_app

INFRA = Path(__file__).parents[2] / "infra"
SCRIPTS = sorted(INFRA.glob("slurm/*.sbatch"))
MANIFESTS = sorted(INFRA.glob("k8s/*.yaml"))
DOCKERFILES = sorted(INFRA.glob("docker/*.Dockerfile"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_valid_bash_and_stops_at_the_first_error(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "set -euo pipefail" in script.read_text()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_without_its_arguments_says_how_to_call_it(script: Path) -> None:
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "usage: sbatch" in done.stderr


def _commands() -> list[tuple[str, list[str]]]:
    """Every call of owl3 in scripts and pods: (file, words after `owl3`)."""
    found = []
    for script in SCRIPTS:
        for call in re.findall(r"\bowl3 ((?:launch|train|eval|curate)\b[^)\n]*)", script.read_text()):
            if "#SBATCH" not in call:
                found.append((script.name, shlex.split(call)))
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            for container in _containers(document):
                if "args" in container:
                    found.append((path.name, container["args"]))
    return found


def _containers(document: dict[str, Any]) -> list[dict[str, Any]]:
    return document.get("spec", {}).get("template", {}).get("spec", {}).get("containers", [])  # type: ignore[no-any-return]


@pytest.mark.parametrize(("file", "words"), _commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_owl3_command_has_the_options_it_uses(file: str, words: list[str]) -> None:
    verb, *rest = words
    command = typer.main.get_command(build_app()).commands[verb]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    used = {word.partition("=")[0] for word in rest if word.startswith("--")}
    assert used <= known, f"{file}: owl3 {verb} has no {sorted(used - known)}"


def test_compose_publishes_on_loopback_only_and_holds_no_password() -> None:
    compose = yaml.safe_load((INFRA / "docker" / "compose.yaml").read_text())
    for name, service in compose["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        for key, value in service.get("environment", {}).items():
            is_secret = re.search("PASSWORD|SECRET|AUTH|KEY|USER$", key) and value != "prefect"
            assert not is_secret or str(value).startswith("${"), f"{name}: {key} is written out"
            assert not re.search(r"://[^/:@]*:[^$/@][^/@]*@", str(value)), f"{name}: {key} holds a password"
        assert set(service.get("depends_on", {})) <= set(compose["services"])


def test_every_variable_that_compose_asks_for_is_in_the_example_and_has_no_value_there() -> None:
    asked = set(re.findall(r"\$\{(\w+)", (INFRA / "docker" / "compose.yaml").read_text()))
    lines = (INFRA / "docker" / "env.example").read_text().splitlines()
    assert {line for line in lines if not line.startswith("#")} == {f"{name}=" for name in asked}


def test_every_image_that_is_pulled_has_a_version() -> None:
    compose = yaml.safe_load((INFRA / "docker" / "compose.yaml").read_text())
    named = [service["image"] for service in compose["services"].values() if "image" in service]
    named += [re.search(r"^FROM (\S+)", text.read_text(), re.M).group(1) for text in DOCKERFILES]  # type: ignore[union-attr]
    assert all(re.search(r":\D*\d", image) for image in named), named


def test_a_service_that_others_wait_for_says_whether_it_is_healthy() -> None:
    services = yaml.safe_load((INFRA / "docker" / "compose.yaml").read_text())["services"]
    for name, service in services.items():
        for other, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"} and "healthcheck" in services[other], name


def test_builders_are_sent_what_images_copy_and_no_password_file() -> None:
    ignored = (INFRA.parent / ".dockerignore").read_text().splitlines()
    rules = [line for line in ignored if not line.startswith("#")]
    copied = {name for text in DOCKERFILES for name in _copied(text)}
    assert rules[0] == "*" and {f"!{name}" for name in copied} == {rule for rule in rules if rule.startswith("!")}
    last = max(number for number, rule in enumerate(rules) if rule.startswith("!"))
    assert "**/.env*" in rules[last + 1 :], "the last rule that fits decides"


def _copied(dockerfile: Path) -> list[str]:
    lines = re.findall(r"^COPY (?:--\S+ )*(.*)$", dockerfile.read_text(), re.M)
    return [word for line in lines for word in line.split()[:-1]]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_copies_what_is_there_and_ends_as_a_user(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    copied = _copied(dockerfile)
    assert copied
    assert all((INFRA.parent / name).exists() for name in copied), copied
    assert re.search(r"^USER (?!root)", text, re.M)


def test_every_automation_is_what_prefect_takes_and_names_a_deployment_that_is_there() -> None:
    from prefect.events.schemas.automations import AutomationCore

    deployed = {
        f"{entry['entrypoint'].rpartition(':')[2].replace('_', '-')}/{entry['name']}"
        for entry in yaml.safe_load((INFRA / "prefect.yaml").read_text())["deployments"]
    }
    some_id = "00000000-0000-0000-0000-000000000000"
    for entry in yaml.safe_load((INFRA / "automations.yaml").read_text())["automations"]:
        actions = []
        for action in entry["actions"]:
            assert action.get("deployment", "evaluate/evaluate") in deployed
            ids = {"deployment_id": some_id} if "deployment" in action else {"block_document_id": some_id}
            actions.append({key: value for key, value in action.items() if key not in ("deployment", "block")} | ids)
        assert AutomationCore.model_validate({**entry, "actions": actions}).name == entry["name"]


def test_ci_without_its_programs_says_what_root_should_install(tmp_path: Path) -> None:
    for program in ("bash", "dirname"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    (tmp_path / "id").write_text("#!/usr/bin/env bash\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    script = INFRA.parent / ".ci" / "run"
    done = subprocess.run(
        ["bash", str(script)], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        ".ci/run: no c++ make chromium chromedriver; let root install g++ make chromium chromium-driver\n"
    )

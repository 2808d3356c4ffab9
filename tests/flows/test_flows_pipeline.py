"""Flows only order the library's steps: they leave the same digests as the command line."""

import ast
import importlib
from pathlib import Path
from typing import Any

import pytest
from demo.tiny import write_tiny_recipe
from planted import SIGNED_QUERY, VARIABLES, holding

from owl3.demo.world import served
from owl3.errors import ConfigError, InputError, Interrupted, Stopped, exit_code_of
from owl3.pipeline import Place, Step, choose_steps, digests
from owl3.recipe import load_recipe

FLOWS = sorted((Path(__file__).parents[2] / "flows").glob("*.py"))


@pytest.mark.processes
@pytest.mark.xdist_group("prefect")
def test_a_flow_leaves_the_same_digests_as_the_library(prefect_server: str, tmp_path: Path) -> None:
    from flows.stages import curate

    path = write_tiny_recipe(tmp_path / "tiny.yaml")
    fetched = curate(recipe=path, workspace=tmp_path / "flow", only=["clips"], shards=(0, 1))
    assert [outcome.step for outcome in fetched] == ["source clips"], "a range of shards is only fetched"
    outcomes = curate(recipe=path, workspace=tmp_path / "flow", only=["clips"])
    recipe = load_recipe(path)
    with served(recipe, tmp_path / "library") as resolve:
        place = Place.at(tmp_path / "library", resolve)
        for step in choose_steps(recipe, ("source", "curate"), ["clips"]):
            step.run(recipe, place)
    assert digests(tmp_path / "flow") == digests(tmp_path / "library")
    assert [outcome.step for outcome in outcomes] == ["source clips", "curate clips"]
    shown = {entry.key: entry for entry in _artifacts()}
    assert {"partitions", "fetch-progress", "curate", "sheet-clips"} <= set(shown)
    assert "clips 00000-00000" in str(shown["partitions"].data)
    assert str(shown["sheet-clips"].data).startswith("data:image/jpeg;base64,")


def _artifacts() -> list[Any]:
    """All artifacts that flow runs have left on the server."""
    import asyncio

    from prefect import get_client

    async def read() -> list[Any]:
        async with get_client() as client:
            return list(await client.read_artifacts())

    return asyncio.run(read())


@pytest.mark.processes
@pytest.mark.xdist_group("prefect")
def test_neither_a_run_nor_its_failure_tells_prefect_a_secret(
    prefect_server: str, prefect_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect import flow

    from flows.steps import take_step

    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)

    def fail(*_: Any) -> Any:
        raise PermissionError(f"https://someone:planted@bucket.test/x?{SIGNED_QUERY} and {VARIABLES['HF_TOKEN']}")

    @flow
    def failing() -> None:
        step = Step("audit", "it", fail)
        take_step(step, load_recipe(write_tiny_recipe(tmp_path / "tiny.yaml")), Place.at(tmp_path, {}))

    monkeypatch.setattr("flows.steps.take.retries", 0)
    with pytest.raises(PermissionError, match="bucket"):
        failing()
    home = Path(prefect_environment["PREFECT_HOME"])
    assert (home / "prefect.db").is_file()
    assert list(holding([home, tmp_path])) == []


@pytest.mark.processes
@pytest.mark.xdist_group("prefect")
def test_a_persons_mistake_fails_the_flow_at_once(prefect_server: str, tmp_path: Path) -> None:
    from flows.stages import plan

    with pytest.raises(ConfigError, match="not built yet"):
        plan(recipe=write_tiny_recipe(tmp_path / "tiny.yaml"), workspace=tmp_path)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (Interrupted("killed"), True),
        (OSError("no space"), True),
        (Stopped("asked to"), False),
        (InputError("no file"), False),
        (ValueError(), False),
    ],
)
def test_a_step_is_tried_again_only_when_that_can_help(error: Exception, again: bool) -> None:
    import asyncio

    from prefect.states import exception_to_failed_state

    from flows.steps import is_transient, take

    async def ask() -> bool:
        state = await exception_to_failed_state(error)
        return await is_transient(take, None, state)  # type: ignore[arg-type]

    assert asyncio.run(ask()) is again


@pytest.mark.parametrize(
    ("module", "options", "told"),
    [
        ("flows.pipeline", ["--workspace", "s3://KEY:SECRET@bucket/work"], "credentials do not belong into a URL"),
        ("flows.automations", ["--file", "nowhere.yaml"], "nowhere.yaml: no such file"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_and_exit_code_2(
    module: str, options: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setattr("sys.argv", [module, *options])
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert exit_code_of(importlib.import_module(module).main) == 2
    told_of = capsys.readouterr().err
    assert told_of.startswith("owl3: ") and told in told_of and told_of.count("\n") == 1


@pytest.mark.parametrize(
    ("variable", "value"), [("OWL3_TASKS_AT_ONCE", "two"), ("OWL3_TASKS_AT_ONCE", "0"), ("OWL3_TASK_RUNNER", "spark")]
)
def test_an_engine_that_is_none_is_named(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.runners import chosen_runner

    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=f"{variable}={value}"):
        chosen_runner()


@pytest.mark.parametrize("path", FLOWS, ids=lambda path: path.name)
def test_flows_decide_nothing(path: Path) -> None:
    """An `if` in a flow means that a function is missing in the library; `flows/steps.py` is how, not what."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.decorator_list]
    assert not [node.lineno for function in functions for node in ast.walk(function) if isinstance(node, ast.If)]


@pytest.mark.parametrize("path", FLOWS, ids=lambda path: path.name)
def test_flows_never_import_torch(path: Path) -> None:
    imported = {
        name.name.partition(".")[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import)
        for name in node.names
    }
    assert not imported & {"torch", "transformers", "deepspeed"}

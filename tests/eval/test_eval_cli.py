import json
from collections.abc import Callable
from pathlib import Path

import pytest
from eval_oracle import Oracle

from owl3.cli import main
from owl3.eval.queue import enqueue
from owl3.eval.runner import main as evaluate
from owl3.eval.settings import EvalConfig, TaskSetting

Out = pytest.CaptureFixture[str]


def last_json(capsys: Out) -> dict[str, object]:
    data: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return data


def test_tasks_are_listed_with_what_they_are(capsys: Out) -> None:
    assert main(["eval", "--list", "--json"]) == 0
    tasks = last_json(capsys)["tasks"]
    assert isinstance(tasks, list)
    assert {"pope", "mvbench", "distractor-mmbench", "scenes-single"} <= {task["name"] for task in tasks}
    assert all(task["about"] and task["version"] for task in tasks)


def test_a_misspelt_task_is_exit_code_2_with_the_nearest_name(capsys: Out) -> None:
    assert main(["eval", "model", "--tasks", "mvbnech", "--dry-run"]) == 2
    assert "did you mean mvbench" in capsys.readouterr().err


def test_a_dry_run_says_what_it_would_score_or_drain(
    capsys: Out, workspace: Path, model_dir: Path, make_benchmark: Callable[[int], Path]
) -> None:
    bench = make_benchmark(3)
    asked = ["eval", str(model_dir), "--tasks", f"scenes-single={bench},pope=hf:lmms-lab/POPE", "--blind", "--dry-run"]
    assert main([*asked, "--limit", "2", "--json"]) == 0
    assert last_json(capsys) == {
        "would_evaluate": ["scenes-single", "pope"],
        "questions": {"scenes-single": 2, "pope": None},
        "passes": 2,
    }
    stage = workspace / "runs" / "demo" / "sft"
    tasks = (TaskSetting(name="scenes-single", folder=str(bench)),)
    enqueue(stage, model_dir, step=5, config=EvalConfig(tasks=tasks), workspace=workspace)
    assert main(["eval", "--drain", str(stage.parent), "--dry-run", "--json"]) == 0
    assert last_json(capsys) == {"pending": ["sft/step-000005: scenes-single"]}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nowhere", "--tasks", "pope", "--dry-run"], "nowhere: no config.json; give a model folder"),
        (["MODEL", "--tasks", "pope=nowhere", "--dry-run"], "nowhere: no such folder; task pope reads"),
        (["MODEL", "--tasks", "pope", "--frames", "8,x"], "--frames '8,x': write different numbers above 0"),
        (["MODEL", "--tasks", "pope", "--frames", "8,8"], "--frames '8,8': write different numbers above 0"),
        (["MODEL", "--tasks", "pope", "--frames", "8", "--num-frames", "4"], "leave --num-frames out"),
        (["MODEL", "--tasks", "pope", "--batch-size", "0"], "--batch-size"),
        (["MODEL", "--tasks", "pope", "--method", "guess"], "--method"),
        (["MODEL", "--tasks", "pope", "--max-error-fraction", "2"], "--max-error-fraction"),
    ],
)
def test_what_makes_no_sense_is_refused_before_a_process_is_started(
    words: list[str], complaint: str, capsys: Out, model_dir: Path
) -> None:
    assert main(["eval", *(str(model_dir) if word == "MODEL" else word for word in words)]) == 2
    assert complaint in " ".join(capsys.readouterr().err.split())


def test_two_results_are_compared_question_by_question(
    capsys: Out, tmp_path: Path, model_dir: Path, make_benchmark: Callable[[int], Path]
) -> None:
    command = ["--checkpoint", str(model_dir), "--tasks", f"scenes-single={make_benchmark(9)}", "--out", str(tmp_path)]
    assert evaluate([*command, "--blind"], lambda _: Oracle()) == 0
    capsys.readouterr()
    seen, blind = sorted(path.parent for path in tmp_path.glob("scenes-single*/manifest.json"))
    seen, blind = (blind, seen) if "blind" in seen.name else (seen, blind)
    assert main(["eval", "--compare", str(blind), str(seen), "--json"]) == 0
    found = last_json(capsys)
    assert (found["first"], found["second"], found["pairs"]) == (pytest.approx(1 / 3), 1.0, 9)


def test_nothing_asked_for_is_wrong_usage(capsys: Out) -> None:
    assert main(["eval"]) == 2
    assert "give a model folder and --tasks" in capsys.readouterr().err

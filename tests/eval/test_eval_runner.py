import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from eval_oracle import Oracle

from owl3.errors import ConfigError
from owl3.eval.queue import enqueue, failure_path, pending, read_requests
from owl3.eval.registry import choose_tasks
from owl3.eval.results import read_summary
from owl3.eval.runner import drain, main, watch
from owl3.eval.settings import EvalConfig, TaskSetting

Make = Callable[[int], Path]


@pytest.fixture
def stage(tmp_path: Path, model_dir: Path, make_benchmark: Make) -> Path:
    """A stage with three requests at its end: single pictures, seen and blind, and a task without files."""
    folder = tmp_path / "runs" / "demo" / "sft"
    tasks = (
        TaskSetting(name="scenes-single", folder=str(make_benchmark(6))),
        TaskSetting(name="scenes-video", folder="nowhere", blind="never"),
    )
    enqueue(folder, model_dir, step=30, config=EvalConfig(tasks=tasks), workspace=tmp_path, end=True)
    return folder


def test_one_command_scores_a_checkpoint_beside_its_blind_run(
    model_dir: Path, make_benchmark: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = make_benchmark(6)
    command = ["--checkpoint", str(model_dir), "--tasks", f"scenes-single={bench}", "--out", str(tmp_path / "out")]
    assert main([*command, "--blind"], lambda _: Oracle()) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])["tasks"]["scenes-single"]
    assert report["figures"]["accuracy"] == 1.0
    assert report["blind_figures"]["accuracy"] == pytest.approx(1 / 3, abs=1e-5)
    assert Path(report["folder"], "manifest.json").is_file()
    layout = json.loads((tmp_path / "out" / "lmms_eval_results.json").read_text())
    assert layout["results"]["scenes-single"]["accuracy,none"] == 1.0
    assert layout["n-samples"]["scenes-single"] == {"original": 6, "effective": 6}


def test_a_finished_result_loads_no_model(model_dir: Path, make_benchmark: Make, tmp_path: Path) -> None:
    command = ["--checkpoint", str(model_dir), "--tasks", f"scenes-single={make_benchmark(3)}", "--out", str(tmp_path)]
    assert main(command, lambda _: Oracle()) == 0

    def refuse(_: Path) -> Oracle:
        raise AssertionError("the model was loaded for nothing")

    assert main(command, refuse) == 0


def test_a_failing_request_keeps_no_other_from_being_done(stage: Path, tmp_path: Path) -> None:
    loaded: list[Path] = []

    def load(place: Path) -> Oracle:
        loaded.append(place)
        return Oracle()

    done, failures = drain(stage.parent, tmp_path, load_answerer=load)
    assert done == 2
    assert len(loaded) == 1
    assert len(failures) == 1
    assert "scenes-video: " in next(iter(failures.values()))
    (left,) = pending(stage)
    assert "no such folder" in failure_path(stage, left).read_text()
    done, failures = drain(stage, tmp_path, load_answerer=load)
    assert (done, len(failures)) == (0, 1)


def test_results_lie_beside_their_checkpoint(stage: Path, tmp_path: Path) -> None:
    drain(stage, tmp_path, load_answerer=lambda _: Oracle())
    found = {r.blind: read_summary(r.result_folder(stage)) for r in read_requests(stage) if r.title == "scenes-single"}
    assert found[False]["figures"]["accuracy"] == 1.0
    assert found[True]["blind"] is True
    assert all(r.result_folder(stage).parent == stage / "evals" / "end" for r in read_requests(stage))


def test_weights_that_changed_under_a_request_are_not_scored(stage: Path, model_dir: Path, tmp_path: Path) -> None:
    (model_dir / "model.safetensors").write_bytes(b"other weights")
    done, failures = drain(stage, tmp_path, load_answerer=lambda _: Oracle())
    assert done == 0
    assert all("other weights lie there now" in line for line in failures.values())


def test_two_workers_share_a_queue_without_doing_anything_twice(stage: Path, tmp_path: Path) -> None:
    oracles = [Oracle(), Oracle()]
    workers = [
        threading.Thread(target=drain, args=(stage, tmp_path), kwargs={"load_answerer": lambda _, o=oracle: o})
        for oracle in oracles
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    asked = oracles[0].asked + oracles[1].asked
    assert sorted(asked) == sorted([f"q{i}" for i in range(6)] * 2)  # once seen, once blind


def test_watching_ends_when_its_stages_are_complete_and_drained(stage: Path, tmp_path: Path) -> None:
    (stage / "manifest.json").write_text("{}")
    done, failures = watch(
        stage.parent, tmp_path, until=["sft"], load_answerer=lambda _: Oracle(), stop=threading.Event()
    )
    assert done == 2
    assert len(failures) == 1


def test_tasks_are_named_with_or_without_their_folder() -> None:
    one, two = choose_tasks("scenes_video, scenes-multi=held/scenes-multi-8", Path("bench"))
    assert (one.name, one.title, one.folder) == ("scenes-video", "scenes-video", Path("bench/scenes-video"))
    assert (two.name, two.title, two.folder) == ("scenes-multi", "scenes-multi-8", Path("held/scenes-multi-8"))
    with pytest.raises(ConfigError, match="two results would be called scenes-single"):
        choose_tasks("scenes-single,scenes-single", Path())


def test_wrong_usage_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--checkpoint", str(tmp_path), "--tasks", "scenes-single"], lambda _: Oracle()) == 2
    assert capsys.readouterr().err.startswith("owl3 eval: ")

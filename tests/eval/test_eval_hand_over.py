from collections.abc import Callable
from pathlib import Path

import pytest
from eval_oracle import Oracle

from owl3.errors import CheckFailed, InputError
from owl3.eval.hand_over import await_scores, check_gates, figures_at, judge_stage, scores
from owl3.eval.queue import enqueue, note_failure, pending
from owl3.eval.runner import drain
from owl3.eval.settings import EvalConfig, TaskSetting


class Learner(Oracle):
    """Sees nothing at first; then looks, but forgets blue."""

    def __init__(self, model_dir: Path) -> None:
        super().__init__()
        self.level = int(model_dir.name.split("-")[1])

    def _look(self, one):  # type: ignore[no-untyped-def]
        said = super()._look(one)
        return {1: "red", 2: said, 3: "red" if said == "blue" else said}[self.level]


@pytest.fixture
def stage(workspace: Path, make_benchmark: Callable[[int], Path]) -> Path:
    folder = workspace / "runs" / "demo" / "sft"
    tasks = (TaskSetting(name="scenes-single", folder=str(make_benchmark(9)), blind="always"),)
    for level, step in ((1, 10), (2, 20), (3, 30)):
        model = folder / f"model-{level}"
        model.mkdir(parents=True)
        (model / "config.json").write_text("{}")
        (model / "model.safetensors").write_bytes(bytes([level]))
        enqueue(folder, model, step=step, config=EvalConfig(tasks=tasks), workspace=workspace, end=level == 3)
    return folder


def evaluated(stage: Path, workspace: Path) -> Path:
    drain(stage, workspace, load_answerer=Learner)
    return stage


def test_scores_form_a_curve_with_the_blind_run_beside_it(stage: Path, workspace: Path) -> None:
    curve = [(s.step, round(s.figures["accuracy"], 2)) for s in scores(evaluated(stage, workspace)) if not s.blind]
    assert curve == [(10, 0.33), (20, 1.0), (30, 0.67)]
    assert figures_at(stage, blind=True)["scenes-single"]["accuracy"] == pytest.approx(1 / 3, abs=1e-5)


def test_gates_let_go_on_or_stop_with_the_reason(stage: Path, workspace: Path) -> None:
    evaluated(stage, workspace)
    assert all(v.passed for v in check_gates(["scenes-single.accuracy >= 1.9 * blind"], stage))
    with pytest.raises(CheckFailed, match=r"not handed on: gate scenes-single.accuracy >= 0.9: FAILED \(0.6667"):
        check_gates(["scenes-single.accuracy >= 0.9", "scenes-single.accuracy >= 0.5"], stage)
    assert [v.passed for v in judge_stage(["scenes-single.accuracy >= previous"], stage)] == [None]
    assert [v.passed for v in judge_stage(["sft: scenes-single.accuracy >= 0.9"], stage)] == [False]
    assert judge_stage(["pretrain: scenes-single.accuracy >= 0.9"], stage) == []
    assert [v.passed for v in judge_stage(["scenes-single.accuracy >= previous"], stage, stage)] == [True]


def test_waiting_ends_with_the_scores_or_with_the_failure(stage: Path, workspace: Path) -> None:
    with pytest.raises(InputError, match="6 evaluations still pending after 0 s"):
        await_scores(stage, timeout_s=0)
    note_failure(stage, pending(stage)[0], "out of memory")
    with pytest.raises(CheckFailed, match=r"the evaluation of scenes-single failed: out of memory$"):
        await_scores(stage, timeout_s=0)
    await_scores(evaluated(stage, workspace), timeout_s=0)


def test_a_score_of_too_few_questions_hands_nothing_on_however_often_one_looks(stage: Path, workspace: Path) -> None:
    """The attempt failed, but its result is finished and says how much is missing: no second attempt is pending."""
    (workspace.parent / "bench9" / "4.png").unlink()
    done, failures = drain(stage, workspace, load_answerer=Learner)
    assert (done, len(failures), pending(stage)) == (3, 3, [])  # blind ones need no pictures
    for _ in range(2):
        with pytest.raises(CheckFailed, match=r"1 of 9 questions could not be put \(media_missing 1\)"):
            await_scores(stage, timeout_s=0)
    await_scores(stage, timeout_s=0, max_error_fraction=0.2)

"""Curves, grids and sweeps: what is drawn is what was scored."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from eval_oracle import COLOURS, Oracle
from PIL import Image

from owl3.eval import runner
from owl3.eval.plots import cells_of, draw_curves, sweep_points

Make = Callable[[int], Path]


def summary(task: str, figures: dict[str, float]) -> dict[str, Any]:
    return {"task": task, "figures": figures, "primary": next(iter(figures)), "floors": {"random": 0.25}}


def test_cells_are_read_from_figures() -> None:
    figures = {"circular_accuracy": 0.5, "circular_accuracy_8": 0.25, "circular_accuracy_8@0.5": 1.0, "accuracy_8": 0.9}
    assert cells_of(figures) == {(8, None): 0.25, (8, 0.5): 1.0}


def test_curves_and_grids_are_drawn_and_plain_scores_are_not(tmp_path: Path) -> None:
    curve = {"circular_accuracy": 0.5} | {f"circular_accuracy_{n}": 1 / n for n in (1, 5, 50)}
    grid = {f"circular_accuracy_{n}@{depth:g}": 0.5 for n in (4, 8) for depth in (0.0, 0.5, 1.0)}
    report = {
        "distractor-mmbench": summary("distractor-mmbench", curve),
        "needle-scenes": summary("needle-scenes", grid),
        "pope": summary("pope", {"f1": 0.8}),
    }
    drawn = draw_curves(report, tmp_path)
    assert [Path(path).name for path in drawn] == ["distractor-mmbench.png", "needle-scenes.png"]
    sizes = [Image.open(path).size for path in drawn]
    assert all(min(size) > 200 for size in sizes)
    before = Path(drawn[0]).read_bytes()
    draw_curves(report, tmp_path)
    assert Path(drawn[0]).read_bytes() == before


def test_a_sweep_asks_once_per_number_of_frames_and_loads_one_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A clip of one colour; the oracle sees as many frames as were asked for."""
    import av

    bench, model = tmp_path / "bench", tmp_path / "model"
    bench.mkdir()
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    with av.open(str(bench / "clip.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 32
        for _ in range(16):
            picture = Image.new("RGB", (32, 32), COLOURS["red"])
            file.mux(stream.encode(av.VideoFrame.from_image(picture)))
        file.mux(stream.encode())
    row = {"id": "q", "media": ["clip.mp4"], "question": "What colour?", "answer": "red", "options": list(COLOURS)}
    (bench / "questions.jsonl").write_text(json.dumps(row) + "\n")
    seen: list[int] = []
    loaded: list[Path] = []

    class Counts(Oracle):
        def answer(self, shown: Any, ask: Any) -> list[str]:
            seen.extend(len(one.pictures[0]) for one in shown)
            return super().answer(shown, ask)

    def load(folder: Path) -> Counts:
        loaded.append(folder)
        return Counts()

    out = tmp_path / "out"
    command = ["--checkpoint", str(model), "--tasks", f"scenes-video={bench}", "--out", str(out), "--frames", "4,2,12"]
    assert runner.main(command, load) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert seen == [4, 2, 12]
    assert loaded == [model]
    points = json.loads((out / "frames.json").read_text())["scenes-video"]
    assert [(row["frames"], row["score"]) for row in points] == [(2, 1.0), (4, 1.0), (12, 1.0)]
    assert Path(report["plots"][0]).is_file()


def test_points_without_a_score_are_left_out_of_a_sweep() -> None:
    empty = {"figures": {}, "primary": "accuracy", "interval_95": None}
    assert sweep_points({8: {"videomme": empty}}) == {}

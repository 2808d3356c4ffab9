"""Figures say whether their target is met, and the loader's report names the fastest peer."""

from pathlib import Path

import pytest

from owl3.bench.loader_report import figures, write_report
from owl3.bench.tables import Figure, write_figures


@pytest.mark.parametrize(
    ("figure", "cells"),
    [
        (Figure("speed", 0.5, 0.5), ["speed", "0.5", "≥ 0.5", "yes"]),
        (Figure("time", 91, 90, "lower", "s"), ["time", "91 s", "≤ 90 s", "**no**"]),
        (Figure("copying", 800, unit="MB/s"), ["copying", "800 MB/s", "", ""]),
    ],
)
def test_a_figure_stands_beside_its_target(figure: Figure, cells: list[str]) -> None:
    assert figure.cells() == cells


def test_a_table_says_with_which_command_and_where(tmp_path: Path) -> None:
    path = tmp_path / "bench" / "x.md"
    write_figures(path, "Copying", [Figure("speed", 2)], command="owl3 bench x", more=["Quiet."])
    text = path.read_text()
    assert text.startswith("# Copying\n\n`owl3 bench x` on ")
    assert text.endswith("| speed | 2 |  |  |\n\nQuiet.\n")


def row(per_s: float, of_limit: float) -> dict[str, float]:
    return {"samples_per_s": per_s, "of_limit": of_limit, "samples_per_cpu_s": per_s, "of_limit_cpu": of_limit}


def test_the_loader_is_measured_against_the_fastest_peer(tmp_path: Path) -> None:
    report = {
        "photos": {"distinct": 4, "samples": 8, "mean_kb": 90.0},
        "rounds": 2,
        "workers_1": {
            "memory": row(100, 1.0),
            "ours": row(96, 0.96),
            "ours_opencv": row(230, 2.3),
            "webdataset": row(90, 0.9),
            "energon": row(80, 0.8),
        },
        "opencv_pixels": {"mean": 0.6, "max": 9, "percent_over_8": 0.01},
        "resume": {"step_10_s": 0.1, "step_10000_s": 3.0},
        "access": {"local disk": {"ratio": 1.0}, "S3 on 127.0.0.1": {"ratio": 1.4}},
    }
    found = {figure.what: figure for figure in figures(report)}
    assert found["ours over the fastest peer (webdataset), 1 worker(s)"].value == 1.067
    assert not found["first batch at step 10,000, imports aside"].is_met
    assert not found["shuffled over sequential reading, S3 on 127.0.0.1"].is_met
    assert sum(figure.is_met is False for figure in found.values()) == 2
    write_report(tmp_path / "loader.md", report)
    assert "| energon | 80 | 0.8 | 80 | 0.8 |" in (tmp_path / "loader.md").read_text()

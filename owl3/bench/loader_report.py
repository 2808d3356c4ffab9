"""What `owl3 bench loader` measured, as figures with targets and as a table of all contestants."""

from pathlib import Path
from typing import Any

from owl3.bench.tables import Figure, markdown, write_figures

_PEERS = ("webdataset", "energon", "streaming")


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write `loader.md`."""
    more = []
    for key, rows in _contestants(report).items():
        more.append(f"With {key.removeprefix('workers_')} worker(s), medians of {report['rounds']} rounds:")
        more.append(markdown(("", "samples/s", "of memory", "samples/CPU s", "of memory, CPU"), rows))
    photos = report["photos"]
    more.append(
        f"Photos: {photos['samples']} samples of {photos['distinct']} distinct ones, {photos['mean_kb']} kB on "
        "average. `memory` decodes and resizes bytes that lie in memory."
    )
    write_figures(path, "Loading photos", list(figures(report)), command="owl3 bench loader", more=more)


def figures(report: dict[str, Any]) -> list[Figure]:
    """The figures that targets are set for."""
    found = []
    for key, runs in _runs(report).items():
        where = f"{key.removeprefix('workers_')} worker(s)"
        peers = {name: runs[name]["samples_per_s"] for name in _PEERS if name in runs}
        fastest = max(peers, key=lambda name: peers[name])
        ours = runs["ours"]
        found += [
            Figure(f"ours over decoding from memory, {where}", ours["of_limit"], 0.95),
            Figure(f"the same by CPU time, {where}", ours["of_limit_cpu"], 0.95),
            Figure(f"ours over the fastest peer ({fastest}), {where}", _ratio(ours, peers[fastest]), 1.0),
            Figure(f"ours with OpenCV over decoding with Pillow, {where}", runs["ours_opencv"]["of_limit"], 2.3),
            Figure(f"the same by CPU time, {where}", runs["ours_opencv"]["of_limit_cpu"], 2.3),
        ]
    pixels = report["opencv_pixels"]
    found += [
        Figure("the fast decoder's pixels differ from Pillow's by, on average", pixels["mean"], unit="of 255"),
        Figure("at most", pixels["max"], unit="of 255"),
        Figure("by more than 8", pixels["percent_over_8"], unit="% of values"),
    ]
    for step, seconds in report.get("resume", {}).items():
        name = step.removeprefix("step_").removesuffix("_s")
        found.append(Figure(f"first batch at step {int(name):,}, imports aside", seconds, 2, "lower", "s"))
    for store, measured in report.get("access", {}).items():
        found.append(Figure(f"shuffled over sequential reading, {store}", measured["ratio"], 1.3, "lower"))
    return found


def _ratio(ours: dict[str, float], peer: float) -> float:
    return round(ours["samples_per_s"] / peer, 3)


def _runs(report: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    return {key: runs for key, runs in report.items() if key.startswith("workers_")}


def _contestants(report: dict[str, Any]) -> dict[str, list[list[object]]]:
    columns = ("samples_per_s", "of_limit", "samples_per_cpu_s", "of_limit_cpu")
    return {
        key: [[name, *(row[column] for column in columns)] for name, row in runs.items()]
        for key, runs in _runs(report).items()
    }

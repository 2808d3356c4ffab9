"""Which checkpoint did best, by a named score of its evaluations: it outlives the limit on checkpoints."""

import json
from pathlib import Path

from owl3.errors import ConfigError


def best_checkpoint(stage_folder: Path, score: str) -> Path | None:
    """Find the checkpoint with the highest score among those evaluated so far; the earlier one of two equals.

    Args:
        stage_folder: `runs/NAME/STAGE`.
        score: `TASK/FIGURE`, as in `scenes-single/accuracy`: the title of a task, and a figure of its summary.

    Raises:
        ConfigError: `score` is written otherwise, or the task has no such figure.
    """
    title, separator, figure = score.partition("/")
    if not separator:
        raise ConfigError(f"keep_best {score!r}: write it as TASK/FIGURE, as in scenes-single/accuracy")
    best: tuple[float, Path] | None = None
    for summary in sorted(stage_folder.glob(f"evals/step-*/{title}-*/summary.json")):
        figures = json.loads(summary.read_bytes()).get("figures", {})
        blind = summary.parent.name.startswith(f"{title}-blind-")
        checkpoint = stage_folder / "checkpoints" / summary.parents[1].name
        if blind or not checkpoint.is_dir():
            continue
        if figure not in figures:
            raise ConfigError(f"keep_best {score!r}: {title} has {', '.join(sorted(figures))}")
        value = float(figures[figure])
        if best is None or value > best[0]:
            best = (value, checkpoint)
    return None if best is None else best[1]

"""What a stage would need to run: every dataset of its mixture, what it asks of it, and what is there.

Works before anything is built: the paper's mixtures are shipped as recipes, and this says what is missing for them.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from owl3.data.mixture import shares
from owl3.data.plan import PlanConfig
from owl3.manifest import MANIFEST_NAME, read_manifest


@dataclass(frozen=True, slots=True)
class Need:
    """One dataset of a mixture."""

    name: str
    percent: float | None
    """Share of all draws; None where shares follow sizes that are not known yet."""
    draws: int | None
    min_samples: int | None
    """Fewest samples that give these draws within the allowed epochs, beside what is held out."""
    kept: int | None
    """Samples that are there; None when the artifact is not built yet."""
    needs: str

    @property
    def is_met(self) -> bool:
        """Whether the dataset is there and large enough."""
        return self.kept is not None and (self.min_samples is None or self.kept >= self.min_samples)


def mixture_needs(config: PlanConfig, workspace: Path) -> list[Need]:
    """Compare a stage's mixture with what lies in the workspace."""
    datasets = config.mixture.datasets
    folders = [workspace / "samples" / dataset.name for dataset in datasets]
    kept = [read_manifest(folder).counts.kept if (folder / MANIFEST_NAME).is_file() else None for folder in folders]
    known = [count for count in kept if count]
    percents: list[float | None] = [None] * len(datasets)
    if datasets[0].weight is not None:
        percents = [dataset.weight for dataset in datasets]
    elif len(known) == len(datasets):
        share = shares(config.mixture, known)
        percents = [100 * part / sum(share) for part in share]
    total = config.steps * config.global_batch_size if config.steps is not None else None
    found = []
    for dataset, percent, count in zip(datasets, percents, kept, strict=True):
        draws = round(total * percent / 100) if total is not None and percent is not None else None
        epochs = dataset.max_epochs or config.mixture.max_epochs
        min_samples = math.ceil(draws / epochs / (1 - config.held_out)) if draws is not None else None
        found.append(Need(dataset.name, percent, draws, min_samples, count, dataset.needs))
    return found

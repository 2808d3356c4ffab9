"""The `eval` section of a recipe: which tasks, on what files, how, and what must hold before a hand-over."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from owl3.config import Config
from owl3.errors import ConfigError
from owl3.eval.gates import parse_gate
from owl3.eval.registry import find_task


def frame_numbers(text: str) -> tuple[int, ...]:
    """`8,16,32`: the numbers of frames of a sweep.

    Raises:
        ConfigError: no list of different numbers above 0.
    """
    parts = [part.strip() for part in text.split(",")]
    numbers = tuple(int(part) for part in parts if part.isdecimal())
    if len(numbers) < len(parts) or min(numbers) < 1 or len(set(numbers)) < len(numbers):
        raise ConfigError(f"--frames {text!r}: write different numbers above 0, as in 8,16,32")
    return numbers


class TaskSetting(Config):
    """One task of a recipe.

    `folder` holds the benchmark's own files; relative to the workspace unless absolute. A limit takes the first
    questions of a fixed shuffle, so that a limited score estimates the full one.
    """

    name: str
    folder: str
    label: str = Field(default="", pattern=r"^[a-z0-9-]*$")
    """What results are called, when one task is put to several folders (`scenes-multi-8`); default: the task's name."""
    limit: int | None = Field(default=None, gt=0)
    """How many questions at the end of a stage; None means all."""
    when: Literal["always", "end"] = "always"
    """Put it to every checkpoint, or only to the weights that a stage ends with."""
    checkpoint_limit: int | None = Field(default=None, gt=0)
    """How many at a checkpoint on the way; None means as many as at the end."""
    num_frames: int | None = Field(default=None, gt=0)
    """Frames of each video; None leaves the task's own number, which is the paper's."""
    overlap: tuple[str, ...] = ()
    """Lists of questions or pictures that training may have seen, relative to the workspace: curation writes
    `shards/NAME/overlap-BENCHMARK.txt` when it flags. Scores are then split into clean and overlapped."""
    blind: Literal["end", "always", "never"] = "end"
    """When the same questions are also put without any medium."""

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        return find_task(name).name

    @property
    def title(self) -> str:
        """The name of its results, and of its figures in gates."""
        return self.label or self.name


class EvalConfig(Config):
    """How the checkpoints of a run are evaluated."""

    tasks: tuple[TaskSetting, ...] = ()
    batch_size: int = Field(default=16, gt=0)
    """Questions answered at once. Changes speed and memory, never a score."""
    method: Literal["generate", "likelihood"] = "generate"
    """`likelihood` picks the most likely of the options shown, where a task has options; else it generates."""
    max_error_fraction: float = Field(default=0.0, ge=0, le=1)
    """Share of questions whose media may be unreadable before an evaluation counts as failed."""
    gates: tuple[str, ...] = ()
    """What must hold at the end of a stage: `sft: scenes-single.accuracy >= 0.5`, `pope.f1 >= previous - 0.01`."""

    @field_validator("tasks")
    @classmethod
    def _are_told_apart(cls, tasks: tuple[TaskSetting, ...]) -> tuple[TaskSetting, ...]:
        titles = [task.title for task in tasks]
        twice = next((title for title in titles if titles.count(title) > 1), None)
        if twice:
            raise ValueError(f"two tasks are called {twice!r}; give one of them a label")
        return tasks

    @field_validator("gates")
    @classmethod
    def _are_readable(cls, gates: tuple[str, ...]) -> tuple[str, ...]:
        for gate in gates:
            parse_gate(gate)
        return gates

    def task_folder(self, setting: TaskSetting, workspace: Path) -> Path:
        """Where a task's files lie."""
        folder = Path(setting.folder)
        return folder if folder.is_absolute() else workspace / folder


class AblationVariant(Config):
    """One way to build the model."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    about: str = ""
    config: dict[str, Any] = Field(default_factory=dict)
    """Keys of the recipe's `model.config` to change."""


class AblationConfig(Config):
    """A recipe trained once per variant and seed, to compare: `owl3 ablate`. Other verbs leave this section alone."""

    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    variants: tuple[AblationVariant, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _are_told_apart(self) -> Self:
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("two variants have one name, or a seed stands there twice")
        return self

"""What every builder is: a table of parents, an order of drawing, and a function from drawn parents to a draft.

`prepare` runs once and writes the tables into a work folder; then any process opens the builder there and asks for any
ordinal. So output shards can be made in any order, by any number of processes, and are the same bytes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from owl3.build.config import BuildBase, Composed
from owl3.build.drafts import Draft, Medium, joined, language_of
from owl3.build.draw import Dice, InFileOrder, Int64s, Order, Shuffled, even_sizes
from owl3.build.pool import Pool, PoolStats, medium_of, write_pool
from owl3.build.templates import Templates, load_templates
from owl3.build.topics import TopicOrder, write_topic_order
from owl3.errors import InputError

ConfigT = TypeVar("ConfigT", bound=BuildBase)


@dataclass(frozen=True)
class Prepared:
    """What `prepare` found, for the manifest."""

    parents: dict[str, Any] = field(default_factory=dict)
    """Conservation of what samples are drawn from: seen, usable, dropped by reason."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Name → sha256 of input files that are no artifacts."""


class Builder(ABC, Generic[ConfigT]):
    """See the head of this file. Subclasses say what a draft looks like."""

    code_version: ClassVar[str]
    """Raised whenever the same inputs give other samples; part of every sample's id."""
    words: ClassVar[str] = ""
    """Name of the builder's templates; empty when it uses none."""
    min_parents: ClassVar[int] = 1
    """Fewest parents a draft can be made from; for `on_missing: shrink`."""

    order: Order
    passes: int = 1
    limit: int | None = None
    """Most attempts with `count: all`, where parents alone do not bound them."""

    def __init__(self, cfg: ConfigT, workspace: Path, work: Path) -> None:
        self.cfg = cfg
        self.workspace = workspace
        self.work = work

    @property
    def name(self) -> str:
        """As the recipe calls it."""
        return self.cfg.builder

    @classmethod
    def templates(cls) -> Templates | None:
        """Its words, if it uses any."""
        return load_templates(cls.words) if cls.words else None

    @classmethod
    def version(cls) -> str:
        """Code version, and version of the words: `2.1` is code 2 with words 1."""
        templates = cls.templates()
        return f"{cls.code_version}.{templates.version}" if templates else cls.code_version

    @classmethod
    @abstractmethod
    def prepare(cls, cfg: Any, workspace: Path, work: Path) -> Prepared:
        """Write the tables that drawing needs into `work`."""

    def sizes(self, ordinals: Int64s) -> Int64s:
        """How many parents each sample draws."""
        return np.ones(len(ordinals), dtype=np.int64)

    @abstractmethod
    def draft(self, ordinal: int, rows: Sequence[int]) -> Draft:
        """Make a draft of drawn parents.

        Raises:
            Refused: with the reason, when it can't become a sample.
        """

    @abstractmethod
    def parents_of(self, rows: Sequence[int]) -> tuple[str, ...]:
        """The ids of drawn parents, for the ledger row of a refused attempt."""

    def dice(self, ordinal: int) -> Dice:
        """Choices of one sample."""
        return Dice(self.name, self.version(), self.cfg.seed, ordinal)

    def language(self, text: str) -> str:
        """The template language for a text: its own when the recipe has it, else the recipe's first."""
        found = language_of(text)
        return found if found in self.cfg.languages else self.cfg.languages[0]


class PoolBuilder(Builder[ConfigT]):
    """One sample per kept row of the shard sets."""

    distinct: ClassVar[bool] = False
    captioned: ClassVar[bool] = False

    def __init__(self, cfg: ConfigT, workspace: Path, work: Path) -> None:
        super().__init__(cfg, workspace, work)
        self.pool = Pool(work / "pool.arrow")
        self.order = self.make_order()

    def make_order(self) -> Order:
        """All rows as they stand, or a drawing in a shuffled order."""
        if self.cfg.count == "all":
            return InFileOrder(len(self.pool))
        return Shuffled(len(self.pool), self.name, self.cfg.seed)

    @classmethod
    def extras(cls, cfg: Any) -> tuple[str | None, ...]:
        """More columns of the shard tables that the builder reads."""
        return ()

    @classmethod
    def prepare(cls, cfg: Any, workspace: Path, work: Path) -> Prepared:
        """Gather the parents of the shard sets."""
        if not cfg.shards:
            raise InputError(f"build {cfg.name}: shards: name at least one shard set to draw from")
        stats = write_pool(
            work / "pool.arrow",
            workspace,
            cfg.shards,
            distinct=cls.distinct,
            captioned=cls.captioned,
            extras=cls.extras(cfg),
        )
        return Prepared(parents=as_counts(stats))

    def parents_of(self, rows: Sequence[int]) -> tuple[str, ...]:
        """See `Builder`."""
        return tuple(self.pool[row]["sample_id"] for row in rows)


def as_counts(stats: PoolStats) -> dict[str, Any]:
    """Parents' conservation, as it stands in a manifest."""
    return {"seen": stats.seen, "usable": stats.usable, "dropped": dict(sorted(stats.dropped.items()))}


ComposedT = TypeVar("ComposedT", bound=Composed)


class ComposedBuilder(PoolBuilder[ComposedT]):
    """Samples that bring several different pictures together."""

    distinct = True
    captioned = True

    def __init__(self, cfg: ComposedT, workspace: Path, work: Path) -> None:
        super().__init__(cfg, workspace, work)
        self.passes = cfg.max_uses
        self.min_parents = cfg.images[0]  # type: ignore[misc]

    def make_order(self) -> Order:
        """Shuffled, or neighbours side by side."""
        if self.cfg.policy == "random":
            return Shuffled(len(self.pool), self.name, self.cfg.seed)
        return TopicOrder(self.work / "topics.npy", self.name, self.cfg.seed)

    @classmethod
    def prepare(cls, cfg: Any, workspace: Path, work: Path) -> Prepared:
        """Gather the parents, and find out which belong together when the policy asks for it."""
        prepared = super().prepare(cfg, workspace, work)
        if prepared.parents["usable"] < cfg.images[0]:
            raise InputError(
                f"build {cfg.name}: images: {cfg.images[0]} pictures make a sample, but the shard sets "
                f"{', '.join(cfg.shards)} hold {prepared.parents['usable']} usable ones"
            )
        if cfg.policy != "random":
            embeddings = workspace / cfg.embeddings if cfg.embeddings else None
            write_topic_order(work / "topics.npy", Pool(work / "pool.arrow"), embeddings, cfg.images[1])
        return prepared

    def sizes(self, ordinals: Int64s) -> Int64s:
        """Evenly over the range; a pool smaller than the range caps it."""
        low, high = self.cfg.images
        return even_sizes(low, min(high, len(self.pool)), ordinals, self.name, self.cfg.seed)

    def drawn(self, rows: Sequence[int]) -> "Drawn":
        """The drawn parents' rows and pictures."""
        return Drawn([self.pool[row] for row in rows], list(rows))


class Drawn:
    """Parents of one sample, in reading order."""

    def __init__(self, parents: list[dict[str, Any]], rows: list[int]) -> None:
        self.parents = parents
        self.media: list[Medium] = [medium_of(parent, row) for parent, row in zip(parents, rows, strict=True)]
        self.captions: list[str] = [parent["caption"] for parent in parents]
        self.ids: tuple[str, ...] = tuple(parent["sample_id"] for parent in parents)

    @property
    def source(self) -> str:
        """Where they come from."""
        return joined([parent["source"] for parent in self.parents])

    @property
    def licence(self) -> str:
        """Under which licences."""
        return joined([parent["licence"] for parent in self.parents])

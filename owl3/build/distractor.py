"""`distractor`: a question about one picture, hidden among others (facts/owl3.md §4.3).

user: Image 1: [image] Image 2: [image] … Image N: [image]. In Image X, {question}   assistant: {answer}

Targets are samples about one picture of a set that was built before (`instruct`); follow-up questions of a target stay
behind its first. With `count: all` every target is asked once. The others come from the same set's pictures, or from
the shard sets when the recipe names some: any of them, or hard negatives (`policy: topic` or `embedding`): pictures
whose captions, or for want of captions whose questions and answers, speak of what the question speaks of. A topic that
is too small is filled up with any others.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from owl3.build.base import ComposedBuilder, Prepared, as_counts
from owl3.build.config import DistractorBuild
from owl3.build.drafts import Draft, Part, Refused, Script, joined
from owl3.build.draw import Int64s, Order, Shuffled, even_sizes
from owl3.build.neighbours import Neighbours, write_neighbours
from owl3.build.pool import SCHEMA, PoolStats, keep_first_of_each, medium_of, write_pool
from owl3.build.rows import RowTable, write_rows
from owl3.errors import InputError
from owl3.samples import Sample
from owl3.shards import read_member

_TARGETS = pa.schema([*SCHEMA, ("json", pa.string())])


class DistractorBuilder(ComposedBuilder[DistractorBuild]):
    """See the head of this file."""

    code_version = "1"
    words = "distractor"
    captioned = False

    def __init__(self, cfg: DistractorBuild, workspace: Path, work: Path) -> None:
        super().__init__(cfg, workspace, work)
        self.targets = RowTable(work / "targets.arrow")
        self._target_order: Order = Shuffled(len(self.targets), self.name, cfg.seed, "targets")
        self.limit = len(self.targets)
        self._neighbours: Neighbours | None = None
        if cfg.policy != "random":
            self._neighbours = Neighbours(work / "neighbours.npz")
            self.passes = cfg.max_uses - cfg.max_uses // 2  # the other half is the neighbours'

    @classmethod
    def prepare(cls, cfg: Any, workspace: Path, work: Path) -> Prepared:
        """Gather the questions, and the pictures to hide them among."""
        targets = _write_targets(work / "targets.arrow", workspace, cfg.samples)
        if cfg.shards:
            pictures = write_pool(work / "pool.arrow", workspace, cfg.shards, distinct=True)
        else:
            pictures = _write_pictures(work / "pool.arrow", work / "targets.arrow")
        if pictures.usable < cfg.images[1]:
            raise InputError(
                f"build {cfg.name}: images: up to {cfg.images[1]} pictures stand together, "
                f"but there are {pictures.usable} different ones"
            )
        if cfg.policy != "random":
            write_neighbours(
                work / "neighbours.npz",
                RowTable(work / "pool.arrow"),
                RowTable(work / "targets.arrow"),
                workspace / cfg.embeddings if cfg.embeddings else None,
                cfg.images[1],
                cfg.builder,
                cfg.seed,
            )
        return Prepared(parents={"targets": as_counts(targets), "pictures": as_counts(pictures)})

    def make_order(self) -> Order:
        """The distractors' order."""
        return Shuffled(len(self.pool), self.name, self.cfg.seed)

    def sizes(self, ordinals: Int64s) -> Int64s:
        """One picture more than needed, in case the target's own is among them."""
        low, high = self.cfg.images
        sizes: Int64s = np.minimum(even_sizes(low, high, ordinals, self.name, self.cfg.seed), len(self.pool))
        return sizes

    def draft(self, ordinal: int, rows: Sequence[int]) -> Draft:
        """See `Builder`."""
        pass_index, place = divmod(ordinal, len(self.targets))
        question_row = int(self._target_order.at(pass_index, np.array([place]))[0])
        target = self.targets[question_row]
        sample = Sample.model_validate_json(target["json"])
        near = self._near(question_row, pass_index, len(rows))
        others = self._others(target, [*near, *rows], len(rows) - 1)
        dice = self.dice(ordinal)
        number = dice.below(len(others) + 1, "place")
        drawn = [*others[:number], target, *others[number:]]
        question, answers = _question_of(sample)
        templates = self.templates()
        assert templates is not None
        language = self.language(question)
        name, gap = templates.pick("name", language, dice), templates.pick("gap", language, dice)
        asked: list[Part] = []
        for index, parent in enumerate(drawn):
            asked += [gap if index else "", name.format(k=index + 1), medium_of(parent)]
        words = templates.pick("ask", language, dice)
        script = Script()
        script.turn("user", *asked, words.format(x=number + 1, question=question))
        for role, text in answers:
            script.turn(role, text)
        return Draft(
            kind="distractor",
            script=script,
            parents=(sample.id, *(parent["sample_id"] for parent in drawn)),
            source=joined([sample.source, *(other["source"] for other in others)]),
            licence=joined([sample.licence, *(other["licence"] for other in others)]),
            extra=f"place {number} round {pass_index}",
            meta={"target": number, "images": len(drawn), "asked": sample.id} | self._hardness(others, near),
        )

    def _near(self, question_row: int, round_: int, count: int) -> Sequence[int]:
        """Pictures of the question's topic, within its half of `max_uses`; none with `policy: random`."""
        if self._neighbours is None:
            return ()
        cfg = self.cfg
        rounds = 1 if cfg.count == "all" else -(-int(cfg.count) // len(self.targets)) + 1  # one for replacements
        most = self._neighbours.window(question_row, rounds, cfg.images[1], cfg.max_uses // 2)
        return self._neighbours.of(question_row, round_, most)[:count]

    def _others(self, target: dict[str, Any], rows: Sequence[int], count: int) -> list[dict[str, Any]]:
        """The first `count` pictures that are not the target's, each once."""
        others = [self.pool[row] for row in dict.fromkeys(rows)]
        return [other for other in others if other["sha256"] != target["sha256"]][:count]

    def _hardness(self, others: list[dict[str, Any]], near: Sequence[int]) -> dict[str, Any]:
        """For the sample's meta: the policy, and how many of the others are of the question's topic."""
        if self._neighbours is None:
            return {}
        alike = {self.pool[row]["sha256"] for row in near}
        return {"policy": self.cfg.policy, "hard": sum(other["sha256"] in alike for other in others)}


def _question_of(sample: Sample) -> tuple[str, list[tuple[Any, str]]]:
    """The words of a question about one picture, and the turns after it."""
    texts = ["".join(s.text or "" for s in sample.segments[turn.start : turn.end]) for turn in sample.turns]
    turns = [(turn.role, text.strip()) for turn, text in zip(sample.turns, texts, strict=True) if turn.role != "system"]
    if not turns or not turns[0][1]:
        raise Refused("empty_text", f"{sample.id} asks nothing in words")
    return turns[0][1], turns[1:]


def _write_targets(path: Path, workspace: Path, names: Sequence[str]) -> PoolStats:
    """Kept samples with one picture and a question, from built sets."""
    stats = PoolStats()

    def tables() -> Iterator[pa.Table]:
        for name in names:
            indexes = sorted((workspace / "samples" / name).glob("[0-9][0-9][0-9][0-9][0-9].parquet"))
            if not indexes:
                raise InputError(f"samples/{name}: no sample indexes; build it first")
            for index in indexes:
                rows = list(_targets_of(index, stats))
                yield pa.Table.from_pylist(rows, schema=_TARGETS)

    write_rows(path, _TARGETS, tables())
    if not stats.usable:
        raise InputError(f"samples {', '.join(names)}: no question about one picture among {stats.seen} samples")
    return stats


def _targets_of(index: Path, stats: PoolStats) -> Iterator[dict[str, Any]]:
    for row in pq.read_table(index).to_pylist():
        if row["decision"] != "kept":
            continue
        stats.seen += 1
        if row["images"] != 1 or row["media"][0]["time_s"] is not None:
            stats.drop("media_mismatch", 1)
            continue
        data = read_member(index.with_suffix(".tar"), row["json_offset"], row["json_bytes"])
        stats.usable += 1
        media = row["media"][0]
        yield {
            "sample_id": row["parents"][0] if row["parents"] else row["sample_id"],
            "caption": " ".join(s.text or "" for s in Sample.model_validate_json(data).segments),
            "source": row["source"],
            "licence": row["licence"],
            "url": "",
            **{name: media[name] for name in ("path", "offset", "bytes", "sha256", "width", "height")},
            "json": data.decode(),
        }


def _write_pictures(path: Path, targets: Path) -> PoolStats:
    """The targets' own pictures, each once."""
    stats = PoolStats()

    def tables() -> Iterator[pa.Table]:
        for batch in RowTable(targets).batches():
            stats.seen += batch.num_rows
            stats.usable += batch.num_rows
            yield pa.Table.from_batches([batch]).select(SCHEMA.names)

    write_rows(path, SCHEMA, tables())
    keep_first_of_each(path, "sha256", "duplicate_exact", stats)
    return stats

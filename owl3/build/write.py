"""One output shard: drafts in, a tar and its index out. What a worker process does.

The index is written last, so a shard with an index is done; a kill leaves nothing that a re-run would not overwrite.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from owl3.build.base import Builder
from owl3.build.config import BuildBase
from owl3.build.drafts import Draft, Refused
from owl3.build.draw import Run, draws_of
from owl3.build.media_reader import Gone, Loaded, MediaReader
from owl3.cost import Cost, cost_of
from owl3.errors import InputError
from owl3.ledger import check_reason
from owl3.samples import Sample, built_sample_id
from owl3.shards import SAMPLE_INDEX, Member, ShardWriter, write_index
from owl3.tokens import TextTokenizer

logger = logging.getLogger(__name__)

MAX_FAILURES_IN_A_ROW = 100
"""So many refusals one after another, for something wrong with the media, mean a broken source, not bad samples."""
_BROKEN_SOURCE = ("missing_media", "hash_mismatch", "not_an_image", "undecodable", "truncated_image")


def tar_hashes(work: Path) -> dict[str, str]:
    """File name → sha256 of the tars that were hashed while they were written; see `ShardBuilder.write`."""
    return {f"{path.stem}.tar": path.read_text() for path in work.glob("*.sha256")}


def shard_name(number: int) -> str:
    """`00042`."""
    return f"{number:05d}"


class ShardBuilder:
    """Writes output shards of one artifact; opened once per process."""

    def __init__(self, builder: Builder[Any], tokenizer: TextTokenizer, folder: Path, workspace: Path) -> None:
        self.builder = builder
        self.folder = folder
        self._cfg: BuildBase = builder.cfg
        self._tokenizer = tokenizer
        self._tar_path = folder.relative_to(workspace)
        self._reader = MediaReader(workspace, self._cfg.max_side_px)
        self._version = builder.version()

    def write(self, run: Run) -> None:
        """Build the samples of a run.

        Raises:
            InputError: when a hundred in a row can't be built; the message names the last one.
        """
        name = shard_name(run.shard)
        rows: list[dict[str, Any]] = []
        failures = 0
        builder = self.builder
        with ShardWriter(self.folder / f"{name}.tar") as tar:
            for ordinal, pass_index, drawn in draws_of(run, builder.sizes, builder.order, builder.passes):
                try:
                    rows.append(self._build(tar, name, ordinal, drawn, pass_index))
                    failures = 0
                except Refused as refused:
                    rows.append(self._refusal(name, drawn, ordinal, refused))
                    logger.info("%s: sample %d: %s: %s", self._cfg.name, ordinal, refused.reason, refused.detail)
                    failures = failures + 1 if refused.reason in _BROKEN_SOURCE else 0
                    if failures == MAX_FAILURES_IN_A_ROW:
                        raise InputError(
                            f"build {self._cfg.name}: {failures} samples in a row failed, the last (number {ordinal}) "
                            f"as {refused.reason}: {refused.detail}; check the media it is built from"
                        ) from refused
        (self.builder.work / f"{name}.sha256").write_text(tar.sha256)
        write_index(self.folder / f"{name}.parquet", rows, SAMPLE_INDEX)

    def _build(
        self, tar: ShardWriter, shard: str, ordinal: int, drawn: Sequence[int], pass_index: int
    ) -> dict[str, Any]:
        draft, media = self._load(ordinal, list(drawn))
        if len(media) > self._cfg.max_images:
            raise Refused("too_many_images", f"{len(media)} images, max_images is {self._cfg.max_images}")
        segments, turns = draft.script.segments, draft.script.turns
        sizes = [(medium.width, medium.height) for medium in media]
        cfg = self._cfg
        cost = cost_of(segments, turns, sizes, tokenizer=self._tokenizer, release=cfg.release, tile_px=cfg.tile_px)
        if cost.text_tokens > cfg.max_text_tokens:
            raise Refused("too_many_tokens", f"{cost.text_tokens} tokens, max_text_tokens is {cfg.max_text_tokens}")
        # Within a pass nobody is drawn twice; in a later one the same parents may meet again.
        extra = f"{draft.extra} pass {pass_index}".strip() if pass_index else draft.extra
        sample = Sample(
            id=built_sample_id(self.builder.name, self._version, cfg.seed, draft.parents, extra),
            kind=draft.kind,
            segments=tuple(segments),
            turns=tuple(turns),
            parents=draft.parents,
            builder=self.builder.name,
            builder_version=self._version,
            source=draft.source,
            licence=draft.licence,
            seed=cfg.seed,
            meta={**draft.meta, "extra": extra} if extra else draft.meta,
        )
        return self._store(tar, shard, sample, media, cost)

    def _load(self, ordinal: int, drawn: list[int]) -> tuple[Draft, list[Loaded]]:
        """Draft and read; with `on_missing: shrink`, again without the parents whose media are gone."""
        while True:
            draft = self.builder.draft(ordinal, drawn)
            try:
                return draft, [self._reader.load(medium) for medium in draft.script.media]
            except Gone as gone:
                left = [row for row in drawn if row != gone.row]
                may_shrink = self._cfg.on_missing == "shrink" and 0 < len(left) < len(drawn)
                if not may_shrink:
                    raise Refused(gone.reason, gone.detail) from gone
                if len(left) < self.builder.min_parents:
                    raise Refused("too_few_images", f"{len(left)} left after {gone.detail}") from gone
                drawn = left

    def _store(
        self, tar: ShardWriter, shard: str, sample: Sample, media: Sequence[Loaded], cost: Cost
    ) -> dict[str, Any]:
        """Append the sample's members; return its row of the index."""
        copied = self._cfg.store == "bytes"
        members = {"json": sample.to_json()}
        if copied:
            members |= {f"{number}.{medium.extension}": medium.data for number, medium in enumerate(media)}
        position = tar.num_samples
        try:
            written = tar.add(sample.id, members)
        except ValueError as error:
            raise Refused("duplicate_row", str(error)) from error
        places: list[dict[str, Any]] = []
        for number, medium in enumerate(media):
            if copied:
                place = _copied(self._tar_path / f"{shard}.tar", written[1 + number])
            else:
                if medium.place is None:
                    raise InputError(
                        f"build {self._cfg.name}: store: references: {sample.id} holds a picture of no parent shard "
                        "(its bytes stand in the instruction file); say store: bytes"
                    )
                place = {"path": medium.place.path, "offset": medium.place.offset, "bytes": len(medium.data)}
            facts = {"sha256": medium.sha256, "width": medium.width, "height": medium.height, "time_s": medium.time_s}
            places.append(place | facts)
        return {
            "sample_id": sample.id,
            "decision": "kept",
            "shard": shard,
            "key": sample.id,
            "position": position,
            "kind": sample.kind,
            "builder": sample.builder,
            "builder_version": sample.builder_version,
            "seed": sample.seed,
            "source": sample.source,
            "licence": sample.licence,
            "parents": list(sample.parents),
            "json_offset": written[0].offset,
            "json_bytes": written[0].num_bytes,
            "media": places,
        } | cost.as_row()

    def _refusal(self, shard: str, drawn: Sequence[int], ordinal: int, refused: Refused) -> dict[str, Any]:
        builder, parents = self.builder, self.builder.parents_of(drawn)
        return {
            "sample_id": built_sample_id(builder.name, self._version, self._cfg.seed, parents, f"refused {ordinal}"),
            "decision": "dropped",
            "reason": check_reason(refused.reason),
            "shard": shard,
            "builder": builder.name,
            "builder_version": self._version,
            "seed": self._cfg.seed,
            "source": "",
            "licence": "",
            "parents": list(parents),
        }


def _copied(tar_path: Path, member: Member) -> dict[str, Any]:
    return {"path": tar_path.as_posix(), "offset": member.offset, "bytes": member.num_bytes}

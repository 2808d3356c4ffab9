"""The rows of a plan by number: what stands in them is read at random, encoded, and proved to cost what was planned."""

import time
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from owl3.data.collate import Drop, Row
from owl3.data.costs import is_cut
from owl3.data.drops import Tombstones
from owl3.data.encode import Decoder, EncodedSample, Encoder
from owl3.data.ranges import RemoteTars
from owl3.data.reading import SampleReader, StoredSample
from owl3.errors import ConfigError, InputError
from owl3.idhash import fingerprints
from owl3.ledger import check_reason, tombstones_path
from owl3.media import MediaError
from owl3.planfile import I64, Plan
from owl3.tokens import TextTokenizer


@dataclass(frozen=True, slots=True)
class _StepRows:
    """The rows of one step, as planned."""

    step: int
    positions: I64
    """Of the samples, by slot."""
    slots: list[npt.NDArray[np.intp]]
    """Of each row."""
    tokens: I64
    """Of each row."""


class PlanDataset(Dataset[Row]):
    """The rows of a plan by number; opens files lazily, so it can be sent to workers."""

    def __init__(
        self,
        plan: Plan,
        workspace: Path,
        tokenizer: TextTokenizer,
        *,
        tile_px: int,
        decoder: Decoder = "pillow",
        tars_url: str | None = None,
    ) -> None:
        if tokenizer.digest != plan.header.tokenizer_digest:
            raise ConfigError(
                f"{plan.folder}: was planned with the tokenizer {plan.header.tokenizer_digest[:12]}, "
                f"this one is {tokenizer.digest[:12]}; use the tokenizer that the samples were built with"
            )
        if plan.header.tile_px not in (0, tile_px):
            raise ConfigError(
                f"{plan.folder}: cut pictures were costed for tiles of {plan.header.tile_px} px, the model's are "
                f"{tile_px} px; build the samples with tile_px: {tile_px}"
            )
        self.plan = plan
        self.workspace = workspace
        self.tars_url = tars_url
        self.encoder = Encoder(
            tokenizer,
            release=plan.header.release,  # type: ignore[arg-type]  # checked by the template on first use
            style="plain" if plan.header.prompt_style == "plain" else "chat",
            tile_px=tile_px,
            decoder=decoder,
        )
        self._reader: SampleReader | None = None
        self._tombstones = Tombstones(tombstones_path(workspace))
        self._last: _StepRows | None = None

    def __len__(self) -> int:
        return len(self.plan.row_costs)

    def __getitem__(self, number: int) -> Row:
        """Encode row `number` of the whole plan."""
        if not 0 <= number < len(self):
            raise IndexError(f"{self.plan.folder}: has rows 0 to {len(self) - 1}, there is no row {number}")
        step = bisect_right(self.plan.steps, number, key=lambda entry: int(entry["first_row"])) - 1
        return self.row(step, number - int(self.plan.steps[step]["first_row"]))

    def row(self, step: int, number: int) -> Row:
        """Encode row `number` of a step.

        Raises:
            InputError: a shard is missing, damaged, or not the one that was planned.
        """
        started = time.perf_counter()
        row = Row(step, number, samples=[])
        met = 0
        countable = True
        planned = self._rows_of(step)
        slots = planned.slots[number]
        retracted = self._tombstones.now()
        words: list[tuple[int, int]] = []
        for position in planned.positions[slots].tolist():
            encoded, tokens = self._sample(row, position, retracted, words)
            met += tokens or 0
            countable &= tokens is not None
            if encoded is not None:
                row.samples.append(encoded)
        if countable and met != int(planned.tokens[number]):
            self._explain_cost(step, number)
        row.fingerprint = fingerprints(np.array(words, dtype=np.uint64), slots).sum(axis=0, dtype=np.uint64)
        row.seconds = time.perf_counter() - started
        return row

    def _rows_of(self, step: int) -> "_StepRows":
        """Who stands in which row of a step: worked out once, for its rows are asked for one after another."""
        if self._last is None or self._last.step != step:
            plan = self.plan
            self._last = _StepRows(step, plan.positions(step), plan.rows(step), plan.row_tokens(step))
        return self._last

    def _sample(
        self, row: Row, position: int, retracted: frozenset[str], words: list[tuple[int, int]]
    ) -> tuple[EncodedSample | None, int | None]:
        """Encode one sample; return it, and its number of tokens where that can be known. Its id's two words are added
        to those that have been met, and to the row's drops what becomes of it if it is left out."""
        if self._reader is None:
            tars = RemoteTars(self.tars_url) if self.tars_url else None
            self._reader = SampleReader(self.plan, self.workspace, tars)
        stored = self._reader.read(position)
        sample_id = stored.sample.id
        words.append((int(sample_id[:16], 16), int(sample_id[16:], 16)))
        dataset = self.plan.header.datasets[self.plan.dataset_of(position)]
        cut = self._is_cut(position, stored, dataset.cut)
        if sample_id in retracted:
            row.drops.append(Drop(row.step, sample_id, dataset.name, "tombstoned", stored.where, "retracted"))
            return None, None
        try:
            encoded = self.encoder.encode(stored, cut)
        except MediaError as error:
            reason = check_reason(error.reason)
            row.drops.append(Drop(row.step, sample_id, dataset.name, reason, stored.where, str(error)))
            return None, None if cut else self.encoder.text_tokens(stored)
        return encoded, len(encoded.input_ids)

    def _is_cut(self, position: int, stored: StoredSample, share: float) -> bool:
        if not share or self.plan.part_of(position) is not None:
            return False
        if any(segment.frame is not None for segment in stored.sample.segments):
            return False
        words = np.array([[int(stored.sample.id[:16], 16), int(stored.sample.id[16:], 16)]], dtype=np.uint64)
        return bool(is_cut(words, np.array([stored.sample.num_media]), self.plan.header.seed, share)[0])

    def _explain_cost(self, step: int, number: int) -> None:
        """Name the sample whose cost is not the planned one.

        Raises:
            InputError: always, unless the row's samples all cost what their index says (then the plan is wrong).
        """
        style = "plain_tokens" if self.plan.header.prompt_style == "plain" else "text_tokens"
        positions = self.plan.positions(step)[self.plan.rows(step)[number]].tolist()
        index = self.plan.sample_rows(self.workspace, positions, [style, "cut_tokens"])
        assert self._reader is not None
        for position, costs in zip(positions, index, strict=True):
            stored = self._reader.read(position)
            dataset = self.plan.header.datasets[self.plan.dataset_of(position)]
            cut = self._is_cut(position, stored, dataset.cut)
            part = self.plan.part_of(position)
            planned = costs["cut_tokens" if cut else style] if part is None else int(part["tokens"])
            tokens = len(self.encoder.encode(stored, cut).input_ids) if cut else self.encoder.text_tokens(stored)
            if tokens != planned:
                raise InputError(
                    f"{stored.where}: has {tokens} text tokens, its index says {planned}; "
                    "its samples were costed with another template or tile size: build them again and plan anew"
                )
        raise AssertionError(f"step {step} row {number}: planned tokens differ from its samples' costs")

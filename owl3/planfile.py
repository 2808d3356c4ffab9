"""The plan on disk: which sample is seen at which step. Read by the loader, the ledger's questions and the reports.

    plans/NAME/STAGE/
      order.npy    uint32[N]    the i-th drawn sample; step = i // global_batch_size, exactly that many per step
      packs.npy    uint16[N]    the row, counted within the step, that the i-th draw shares with others
      rows.npy     [rows]       text tokens and picture tiles of every row of the plan
      steps.npy    [steps]      first row, tokens, trained tokens, pictures, tiles and fingerprint of every step
      locate.npy   uint32[M]    tar block where each sample of the mixture begins
      parts.npy    [parts]      of split samples, where there are any: whose, which segments, costs
      plan.json                 datasets with their digests, shards and shares; prefix digests; figures

A *position* names one of the M samples of a mixture: the dataset's `offset` plus the sample's number among the kept
rows of that dataset, shards in name order. Parts of split samples come after them and have positions of their own.
Positions are only meaningful inside one plan; ids last.

Everything is memory-mapped: opening a plan at step ten million costs what opening it at step ten costs.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from owl3.config import Config
from owl3.errors import InputError, StaleError
from owl3.idhash import chain_digest
from owl3.manifest import Manifest, read_manifest
from owl3.sampleindex import index_folder, kept_rows

I64 = npt.NDArray[np.int64]

FORMAT = 1
DIGEST_STEPS = 100
"""A prefix digest is kept for every so many steps."""

DRAWS_PER_BLOCK = 1 << 22
"""So much of an order is searched at a time."""

TAR_BLOCK = 512

STEP_DTYPE = np.dtype(
    [
        ("first_row", "<i8"),
        ("tokens", "<i8"),
        ("trained_tokens", "<i8"),
        ("images", "<i4"),
        ("tiles", "<i4"),
        ("fingerprint", "<u8", (2,)),
    ]
)


PART_DTYPE = np.dtype(
    [("position", "<i8"), ("start", "<i4"), ("end", "<i4"), ("tokens", "<i4"), ("trained", "<i4"), ("images", "<i4")]
)
"""A part of a split sample: whose, which segments of it (half-open), and what it costs."""


class PlannedShard(Config):
    """One tar of a dataset, as it was when the plan was made."""

    name: str
    first: int
    """Number of its first sample within the dataset."""
    bytes: int
    """Size of the tar; another size means that it was rewritten or truncated."""


class PlannedDataset(Config):
    """One samples artifact of the mixture, as it was when the plan was made."""

    name: str
    digest: str
    offset: int
    num_samples: int
    first_part: int = 0
    """Row of `parts.npy` where its parts begin. Part k has the position `offset + num_samples + k`."""
    num_parts: int = 0
    draws: int
    cut: float
    shards: tuple[PlannedShard, ...]


class PlanHeader(Config):
    """What `plan.json` holds."""

    format: int
    stage: str
    num_steps: int
    global_batch_size: int
    max_tokens: int
    max_tiles: int
    prompt_style: str
    release: str
    tile_px: int = 0
    """Side of a tile that cut pictures were costed for; 0 when nothing is cut."""
    tokenizer_digest: str
    seed: int
    datasets: tuple[PlannedDataset, ...]
    prefix_digests: tuple[str, ...]
    """Entry k covers the sample ids of the first (k + 1) * 100 steps."""
    figures: dict[str, Any]


class Proof(Config):
    """Which samples a checkpoint saw: the digest over their ids, and those of each hundred steps on the way."""

    plan: str
    step: int
    digest: str
    every: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sample lies: shard `shard` of dataset number `dataset`, and the bytes of its tar from start to end."""

    dataset: int
    shard: int
    start: int
    end: int
    shard_bytes: int


@contextmanager
def _part_of_plan(folder: Path, name: str) -> Iterator[Path]:
    """Refuse a plan of which one file is gone, or is not what it should be."""
    path = folder / name
    try:
        yield path
    except (OSError, ValueError) as error:
        why = "missing" if not path.is_file() else "damaged or cut off"
        raise InputError(f"{path}: {why}, so this is not a whole plan; remove {folder} and plan again") from error


def _array(folder: Path, name: str) -> Any:
    with _part_of_plan(folder, name) as path:
        return np.load(path, mmap_mode="r")


class Plan:
    """A finished plan, opened for reading."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        with _part_of_plan(folder, "plan.json") as path:
            self.header = PlanHeader.model_validate_json(path.read_bytes())
        self.order, self.packs, self.row_costs, self.steps, self._locate = (
            _array(folder, f"{name}.npy") for name in ("order", "packs", "rows", "steps", "locate")
        )
        has_parts = (folder / "parts.npy").is_file()
        self._parts = _array(folder, "parts.npy") if has_parts else np.zeros(0, dtype=PART_DTYPE)
        if self.header.format != FORMAT or len(self.order) != self.num_steps * self.global_batch_size:
            raise InputError(f"{folder}: a plan of another format; remove it and plan again")

    @classmethod
    def open(cls, folder: Path) -> "Plan":
        """Open a finished plan.

        Raises:
            InputError: when the folder holds no finished plan.
        """
        manifest = read_manifest(folder)
        if manifest.kind != "plan":
            raise InputError(f"{folder}: holds a {manifest.kind}, not a plan; give plans/NAME/STAGE")
        return cls(folder, manifest)

    @property
    def digest(self) -> str:
        """The artifact's digest."""
        return self.manifest.digest

    @property
    def num_steps(self) -> int:
        """Optimizer steps."""
        return self.header.num_steps

    @property
    def global_batch_size(self) -> int:
        """Samples per step."""
        return self.header.global_batch_size

    def positions(self, step: int) -> I64:
        """Positions of the samples of a step, in draw order (slots 0 … global_batch_size - 1)."""
        start = self._checked(step) * self.global_batch_size
        return np.asarray(self.order[start : start + self.global_batch_size], dtype=np.int64)

    def rows(self, step: int) -> list[npt.NDArray[np.intp]]:
        """Slots of each row of a step."""
        start = self._checked(step) * self.global_batch_size
        row_of_slot = np.asarray(self.packs[start : start + self.global_batch_size])
        by_row = np.argsort(row_of_slot, kind="stable")
        edges = np.searchsorted(row_of_slot[by_row], np.arange(1, int(row_of_slot.max()) + 1))
        return np.split(by_row, edges)

    def row_tiles(self, step: int) -> npt.NDArray[np.int64]:
        """Picture tiles of each row of a step."""
        return np.asarray(self._rows_of(step)["tiles"], dtype=np.int64)

    def row_tokens(self, step: int) -> npt.NDArray[np.int64]:
        """Text tokens of each row of a step."""
        return np.asarray(self._rows_of(step)["tokens"], dtype=np.int64)

    def trained_tokens(self, step: int) -> int:
        """Tokens with a label in a step: what its loss is divided by, at any world size."""
        return int(self.steps[self._checked(step)]["trained_tokens"])

    def steps_of(self, positions: Sequence[int]) -> list[int]:
        """Steps that hold any of these samples, or a part of one, rising."""
        return [int(step) for step in np.unique(self.draws_of(positions) // self.global_batch_size)]

    def draws_of(self, positions: Sequence[int]) -> I64:
        """Numbers of the draws of these samples, or of a part of one, rising; the order is read block by block."""
        if not len(positions):
            return np.zeros(0, dtype=np.int64)
        last = self.header.datasets[-1]
        wanted = np.zeros(last.offset + last.num_samples + last.num_parts, dtype=bool)
        wanted[self.with_parts(positions)] = True
        starts = range(0, len(self.order), DRAWS_PER_BLOCK)
        blocks = (np.flatnonzero(wanted[self.order[start : start + DRAWS_PER_BLOCK]]) + start for start in starts)
        return np.concatenate([np.zeros(0, dtype=np.int64), *blocks])

    def seen_before(self, step: int) -> I64:
        """Positions of all samples that the first `step` steps hold, whole or in part, each once, rising."""
        drawn = np.unique(self.order[: step * self.global_batch_size]).astype(np.int64)
        if not len(self._parts):
            return drawn
        return np.unique([self.base_of(position) for position in drawn.tolist()])

    def part_of(self, position: int) -> np.void | None:
        """The part (`PART_DTYPE`) that a position means; None for a whole sample."""
        dataset = self.header.datasets[self.dataset_of(position)]
        local = position - dataset.offset
        if local < dataset.num_samples:
            return None
        return self._parts[dataset.first_part + local - dataset.num_samples]  # type: ignore[no-any-return]

    def base_of(self, position: int) -> int:
        """The position of the sample that a part belongs to; of a whole sample, its own."""
        part = self.part_of(position)
        return position if part is None else int(part["position"])

    def with_parts(self, positions: Sequence[int]) -> list[int]:
        """Add the positions of the parts of these samples."""
        rows = np.flatnonzero(np.isin(self._parts["position"], np.asarray(positions, dtype=np.int64))).tolist()
        firsts = [dataset.first_part for dataset in self.header.datasets]
        found = list(positions)
        for row in rows:
            dataset = self.header.datasets[bisect_right(firsts, row) - 1]
            found.append(dataset.offset + dataset.num_samples + row - dataset.first_part)
        return found

    def dataset_of(self, position: int) -> int:
        """Number of the dataset that a position belongs to."""
        return bisect_right(self._offsets, position) - 1

    def place(self, position: int) -> Place:
        """Where the bytes of a sample lie; of a part, those of its whole sample."""
        number = self.dataset_of(position := self.base_of(position))
        dataset = self.header.datasets[number]
        local = position - dataset.offset
        shard = bisect_right(self._firsts[number], local) - 1
        last = self._firsts[number][shard + 1] if shard + 1 < len(dataset.shards) else dataset.num_samples
        size = dataset.shards[shard].bytes
        # A tar ends with two empty blocks at least: the last sample's bytes are read up to them and stop at zeros.
        end = int(self._locate[position + 1]) * TAR_BLOCK if local + 1 < last else size
        return Place(number, shard, int(self._locate[position]) * TAR_BLOCK, end, size)

    def sample_rows(self, workspace: Path, positions: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Read index rows of some samples, in the order asked for. Meant for people's questions, not for loading."""
        places = [self.place(position) for position in positions]
        tables: dict[tuple[int, int], pa.Table] = {}
        found = []
        for position, place in zip(positions, places, strict=True):
            dataset = self.header.datasets[place.dataset]
            where = (place.dataset, place.shard)
            if where not in tables:
                folder = index_folder(workspace, dataset.name, dataset.digest)
                tables[where] = kept_rows(folder / f"{dataset.shards[place.shard].name}.parquet", columns)
            number = self.base_of(position) - dataset.offset - dataset.shards[place.shard].first
            found.append(tables[where].slice(number, 1).to_pylist()[0])
        return found

    def find(self, workspace: Path, sample_id: str) -> list[int]:
        """Positions of a sample, by its id or the beginning of one; none when no dataset of the mixture keeps it."""
        found: list[int] = []
        for dataset in self.header.datasets:
            folder = index_folder(workspace, dataset.name, dataset.digest)
            for shard in dataset.shards:
                ids = kept_rows(folder / f"{shard.name}.parquet", ["sample_id"])
                matches = pc.starts_with(ids["sample_id"], sample_id).to_numpy()
                found += (np.flatnonzero(matches) + dataset.offset + shard.first).tolist()
        return found

    def check_parents(self, workspace: Path) -> None:
        """Make sure that the samples are still the ones the plan was made from.

        Raises:
            StaleError: naming the artifact that was made anew since.
        """
        for dataset in self.header.datasets:
            folder = workspace / "samples" / dataset.name
            if read_manifest(folder).digest != dataset.digest:
                raise StaleError(
                    f"{folder}: was made anew after {self.folder} was planned; plan again under another name, "
                    "or bring the old samples back"
                )

    def prefix_digest(self, step: int) -> str:
        """Digest over the sample ids of the first `step` steps, in order."""
        if not 0 <= step <= self.num_steps:
            raise InputError(f"{self.folder}: has {self.num_steps} steps, asked for the first {step}")
        whole = step // DIGEST_STEPS
        digest = self.header.prefix_digests[whole - 1] if whole else ""
        rest = self.steps["fingerprint"][whole * DIGEST_STEPS : step]
        return chain_digest(digest, np.asarray(rest)) if len(rest) or not whole else digest

    def proof(self, step: int) -> Proof:
        """What a checkpoint after `step` steps keeps, to prove later which samples it saw."""
        every = self.header.prefix_digests[: step // DIGEST_STEPS]
        return Proof(plan=self.digest, step=step, digest=self.prefix_digest(step), every=every)

    def check_proof(self, proof: Proof) -> None:
        """Make sure that a checkpoint saw exactly this plan's first steps, so that training can go on with it.

        Another plan may do so: one made after a retraction equals the old one before the first tainted step.

        Raises:
            StaleError: saying where the two orders part.
        """
        if proof.plan == self.digest:
            return
        if proof.step <= self.num_steps and self.prefix_digest(proof.step) == proof.digest:
            return
        pairs = zip(proof.every, self.header.prefix_digests, strict=False)
        agreed = next((k for k, (one, other) in enumerate(pairs) if one != other), len(proof.every)) * DIGEST_STEPS
        raise StaleError(
            f"{self.folder}: the checkpoint at step {proof.step} was trained with another plan ({proof.plan[:12]}); "
            f"the two part after step {min(agreed, self.num_steps)} and before step "
            f"{min(agreed + DIGEST_STEPS, proof.step)}: go on with the old plan, or from a checkpoint before that"
        )

    def parting_step(self, other: "Plan") -> int | None:
        """The first step that differs from another plan's; None when one plan begins with all of the other."""
        common = min(self.num_steps, other.num_steps)
        block = 1 << 16
        for start in range(0, common, block):
            part = slice(start, min(start + block, common))
            differs = (self.steps["fingerprint"][part] != other.steps["fingerprint"][part]).any(axis=1)
            if differs.any():
                return start + int(np.argmax(differs))
        return None

    @cached_property
    def _offsets(self) -> list[int]:
        return [dataset.offset for dataset in self.header.datasets]

    @cached_property
    def _firsts(self) -> list[list[int]]:
        return [[shard.first for shard in dataset.shards] for dataset in self.header.datasets]

    def _rows_of(self, step: int) -> npt.NDArray[Any]:
        first = int(self.steps[self._checked(step)]["first_row"])
        end = int(self.steps[step + 1]["first_row"]) if step + 1 < self.num_steps else len(self.row_costs)
        return np.asarray(self.row_costs[first:end])

    def _checked(self, step: int) -> int:
        if not 0 <= step < self.num_steps:
            raise InputError(f"{self.folder}: has steps 0 to {self.num_steps - 1}, there is no step {step}")
        return step


def iter_plans(workspace: Path) -> Iterator[Plan]:
    """Open every finished plan of a workspace, by name."""
    for path in sorted(workspace.glob("plans/*/*/manifest.json")):
        yield Plan.open(path.parent)

"""Fix, before any accelerator is asked for, which sample is seen at which step.

A plan is a pure function of (sample indexes, this config, tombstones): not of machines, ranks or workers. One step is
exactly `global_batch_size` draws of the mixture; the draws of a step are packed into rows within it. `planfile.py`
says what lies on disk and reads it.

A retracted sample is passed over when its turn comes, so a new plan equals the old one before the first tainted step.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock
from pydantic import Field, model_validator

from owl3.config import Config
from owl3.data.costs import CostTable, PromptStyle, join_tables, read_costs
from owl3.data.figures import plan_figures
from owl3.data.mixture import MixtureConfig, draw_datasets, held_out, shares, shuffled
from owl3.data.rows import add_up, digest_prefixes, pack_draws
from owl3.data.split import Limits, find_tokenizer, split_long
from owl3.errors import ConfigError, InputError
from owl3.idhash import U64, id_words
from owl3.ledger import tombstones_path
from owl3.manifest import MANIFEST_NAME, Counts, Manifest, find_current, read_manifest, write_manifest
from owl3.planfile import FORMAT, PART_DTYPE, PlanHeader, PlannedDataset
from owl3.progress import SILENT, Progress
from owl3.storage import atomic_writer, write_atomic


class PlanConfig(Config):
    """Everything that the order and the reading of samples depend on."""

    mixture: MixtureConfig
    global_batch_size: int = Field(gt=0)
    """Samples per optimizer step, over all ranks."""
    steps: int | None = Field(default=None, gt=0)
    """Optimizer steps; give this or `epochs`."""
    epochs: float | None = Field(default=None, gt=0)
    """Draws as a multiple of the usable samples; a last step that would not be full is left out."""
    max_tokens: int = Field(gt=0)
    """Text tokens per row."""
    max_tiles: int = Field(default=64, gt=0)
    """Picture tiles per row: whole pictures and frames count 1, a cut picture counts its tiles and its global view."""
    long_samples: Literal["drop", "split"] = "drop"
    """Samples longer than a row: left out, or cut between segments or exchanges where each part stands on its own."""
    pack: bool = True
    """Put several samples into a row; off, every sample has a row of its own."""
    rows_multiple: int = Field(default=1, gt=0)
    """Rows per step are a multiple of this: give ranks x rows per forward pass, and no rank waits for another. Other
    numbers of ranks compute the same steps."""
    prompt_style: PromptStyle = "chat"
    """`chat` with roles, or `plain`: picture, caption, end of text."""
    held_out: float = Field(default=0.0, ge=0, lt=1)
    """Share of every dataset that is kept for validation and never drawn; give every stage the same."""
    slice: Literal["train", "held_out"] = "train"
    """Draw from what is not held out, or from what is."""
    seed: int = Field(default=0, ge=0)
    shuffle: Literal["full", "groups"] = "full"
    """`groups` keeps `shard_group` shards together while they are read: for data that lie far away."""
    shard_group: int = Field(default=16, gt=0)

    @model_validator(mode="after")
    def _has_one_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        if self.slice == "held_out" and not self.held_out:
            raise ValueError("slice: held_out needs a share: give held_out")
        return self


def make_plan(
    config: PlanConfig, workspace: Path, *, run_name: str, stage: str, progress: Progress = SILENT
) -> Manifest:
    """Plan one stage of a run: samples/* → plans/RUN/STAGE. Does nothing when that plan is there.

    Raises:
        ConfigError: the data can't give what is asked: missing datasets, more draws than `max_epochs` allows, …
        InputError: a samples artifact is damaged or disagrees with the others.
        StaleError: another plan lies there.
    """
    folder = workspace / "plans" / run_name / stage
    return make_plan_in(folder, config, workspace, name=f"{run_name}/{stage}", progress=progress)


def make_plan_in(
    folder: Path, config: PlanConfig, workspace: Path, *, name: str, progress: Progress = SILENT
) -> Manifest:
    """Plan into a folder of one's own; see `make_plan`."""
    parents = read_parents(config, workspace)
    if done := find_current(folder, config, parents):
        return done
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if done := find_current(folder, config, parents):
            return done
        return _make(config, workspace, folder, parents, name=name, progress=progress)


def usable_samples(config: PlanConfig, workspace: Path) -> list[int]:
    """How many samples of each dataset can be drawn; raises as `make_plan` does."""
    tables = _read_tables(config, workspace, read_parents(config, workspace))
    reasons = [_reasons(table, config, i, _retracted(workspace))[0] for i, table in enumerate(tables)]
    return [int(np.count_nonzero(reason == _USABLE)) for reason in reasons]


def read_parents(config: PlanConfig, workspace: Path) -> list[Manifest]:
    """Read the manifests of the mixture's datasets.

    Raises:
        ConfigError: naming every dataset that is not there, and what it needs.
    """
    folders = [workspace / "samples" / dataset.name for dataset in config.mixture.datasets]
    missing = [
        f"{dataset.name} ({dataset.needs})" if dataset.needs else dataset.name
        for dataset, folder in zip(config.mixture.datasets, folders, strict=True)
        if not (folder / MANIFEST_NAME).is_file()
    ]
    if missing:
        raise ConfigError(
            f"{workspace / 'samples'}: {len(missing)} of {len(folders)} datasets of the mixture are not built yet: "
            f"{'; '.join(missing)}; build them, or take them out of the mixture"
        )
    parents = [read_manifest(folder) for folder in folders]
    cuts = any(dataset.cut for dataset in config.mixture.datasets)
    for key in ("tokenizer_digest", "release", *(["tile_px"] if cuts else [])):
        said = {str(parent.stats.get(key, "")): parent.name for parent in parents}
        if "" in said:
            raise InputError(f"samples/{said['']}: its manifest does not say {key}; build it again with this version")
        if len(said) > 1:
            (one, name), (other, other_name) = sorted(said.items())[:2]
            raise InputError(
                f"samples/{name} and samples/{other_name} were costed with different settings: {key} {one[:12]} and "
                f"{other[:12]}; build both with the same tokenizer, release and tile_px"
            )
    return parents


def _make(
    config: PlanConfig, workspace: Path, folder: Path, parents: list[Manifest], *, name: str, progress: Progress
) -> Manifest:
    stage = folder.name
    progress.start(f"plan {stage}")
    datasets = config.mixture.datasets
    tables = _read_tables(config, workspace, parents)
    costs = join_tables(tables)
    retracted = _retracted(workspace)
    reasons, sizes = zip(*(_reasons(table, config, i, retracted) for i, table in enumerate(tables)), strict=True)
    usable = [int(np.count_nonzero(reason == _USABLE)) for reason in reasons]
    share = shares(config.mixture, sizes if all(usable) else usable)
    num_steps = _num_steps(config, sum(sizes))
    drawn_N = draw_datasets(share, num_steps * config.global_batch_size, config.seed)
    draws = [int(np.count_nonzero(drawn_N == number)) for number in range(len(tables))]
    _check_epochs(config, draws, usable)
    offsets = np.cumsum([0, *(len(table) for table in tables)]).tolist()
    order_N = _order(config, tables, reasons, drawn_N, offsets)
    packs_N = pack_draws(costs, order_N, config)
    rows, steps = add_up(costs, order_N, packs_N, config)
    header = PlanHeader(
        format=FORMAT,
        stage=stage,
        num_steps=num_steps,
        global_batch_size=config.global_batch_size,
        max_tokens=config.max_tokens,
        max_tiles=config.max_tiles,
        prompt_style=config.prompt_style,
        release=str(parents[0].stats["release"]),
        tile_px=int(parents[0].stats["tile_px"]) if any(dataset.cut for dataset in datasets) else 0,
        tokenizer_digest=str(parents[0].stats["tokenizer_digest"]),
        seed=config.seed,
        datasets=tuple(
            PlannedDataset(
                name=dataset.name,
                digest=parent.digest,
                offset=offsets[i],
                num_samples=tables[i].num_samples,
                first_part=sum(len(table.parts) for table in tables[:i]),
                num_parts=len(tables[i].parts),
                draws=draws[i],
                cut=dataset.cut,
                shards=tables[i].shards,
            )
            for i, (dataset, parent) in enumerate(zip(datasets, parents, strict=True))
        ),
        prefix_digests=digest_prefixes(steps),
        figures=plan_figures(
            tables, order_N, rows, steps, share=share, draws=draws, usable=usable, max_tokens=config.max_tokens
        ),
    )
    _save(folder / "order.npy", order_N)
    _save(folder / "packs.npy", packs_N)
    _save(folder / "rows.npy", rows)
    _save(folder / "steps.npy", steps)
    _save(folder / "locate.npy", costs.block)
    (folder / "parts.npy").unlink(missing_ok=True)  # of an attempt with another config that was killed
    if any(len(table.parts) for table in tables):
        _save(folder / "parts.npy", _joined_parts(tables, offsets))
    write_atomic(folder / "plan.json", header.model_dump_json(indent=1).encode() + b"\n")
    manifest = write_manifest(
        folder,
        kind="plan",
        name=name,
        counts=_counts(tables, reasons, order_N, offsets),
        recipe=config,
        parents=parents,
        stats={
            "num_steps": num_steps,
            "global_batch_size": config.global_batch_size,
            "rows": len(rows),
            "tokens": int(steps["tokens"].sum()),
            "trained_tokens": int(steps["trained_tokens"].sum()),
            "images": int(steps["images"].sum()),
            "tiles": int(steps["tiles"].sum()),
            "packing_efficiency": header.figures["packing_efficiency"],
            "split_samples": sum(len(np.unique(table.parts["position"])) for table in tables),
            "retracted_at_planning": len(retracted),
        },
    )
    progress.finish(f"{num_steps} steps, {len(rows)} rows, {header.figures['packing_efficiency']:.1%} full")
    return manifest


def _read_tables(config: PlanConfig, workspace: Path, parents: Sequence[Manifest]) -> list[CostTable]:
    """The samples of every dataset with their costs, long ones split where that is wanted."""
    tables = [
        read_costs(workspace, dataset, parent, config.prompt_style, config.seed)
        for dataset, parent in zip(config.mixture.datasets, parents, strict=True)
    ]
    if config.long_samples == "split":
        return [_with_parts(config, workspace, table, parents[0]) for table in tables]
    return tables


def _with_parts(config: PlanConfig, workspace: Path, table: CostTable, parent: Manifest) -> CostTable:
    """Cut the samples of a dataset that are longer than a row."""
    too_long = np.flatnonzero((table.tokens > config.max_tokens) | (table.tiles > config.max_tiles))
    if not len(too_long):
        return table
    tokenizer = find_tokenizer(workspace, str(parent.stats["tokenizer_digest"]))
    limits = Limits(config.max_tokens, config.max_tiles, tokenizer, parent.stats["release"], config.prompt_style)
    return table.with_parts(split_long(workspace, table, too_long, limits))


def _joined_parts(tables: Sequence[CostTable], offsets: Sequence[int]) -> npt.NDArray[np.void]:
    """All parts, with positions of the whole mixture."""
    joined: list[npt.NDArray[np.void]] = [np.zeros(0, dtype=PART_DTYPE)]
    for table, offset in zip(tables, offsets, strict=False):
        parts = table.parts.copy()
        parts["position"] += offset
        joined.append(parts)
    return np.concatenate(joined)


_USABLE, _TOMBSTONED, _OVER_ROW_LENGTH, _OVER_ROW_IMAGES, _OVER_CAP, _SPLIT, _HELD_OUT, _NOT_HELD_OUT = range(8)
_REASON_NAMES = {
    _TOMBSTONED: "tombstoned",
    _OVER_ROW_LENGTH: "over_row_length",
    _OVER_ROW_IMAGES: "over_row_images",
    _OVER_CAP: "over_cap",
    _HELD_OUT: "held_out",
}


def _reasons(table: CostTable, config: PlanConfig, number: int, retracted: U64) -> tuple[npt.NDArray[np.uint8], int]:
    """Say of each sample of a dataset whether it can be drawn, and why not.

    Returns:
        The reasons, and how many samples could be drawn had nothing been retracted or purged: what shares follow,
        because taking one sample out must not shift all the others.
    """
    reason = np.zeros(len(table), dtype=np.uint8)
    reason[table.tiles > config.max_tiles] = _OVER_ROW_IMAGES
    reason[table.tokens > config.max_tokens] = _OVER_ROW_LENGTH
    reason[table.parts["position"]] = _SPLIT
    purged_fits = (table.purged_tokens <= config.max_tokens) & (table.purged_images <= config.max_tiles)
    if config.held_out:
        is_train = config.slice == "train"
        reason[held_out(table.ids[:, 0], config.held_out) == is_train] = _HELD_OUT if is_train else _NOT_HELD_OUT
        purged_fits &= held_out(table.purged_ids[:, 0], config.held_out) != is_train
    fitting = np.flatnonzero(reason == _USABLE)
    size = len(fitting) + int(np.count_nonzero(purged_fits))
    cap = config.mixture.datasets[number].max_samples
    if cap is not None and size > cap:
        # An epoch number that no training reaches: which samples stay is independent of the order they come in.
        keys = np.concatenate([table.keys[fitting], table.purged_ids[purged_fits, 0]])
        over = shuffled(keys, config.seed, epoch=1 << 40)[cap:]
        reason[fitting[over[over < len(fitting)]]] = _OVER_CAP
        size = cap
    if len(retracted):
        candidates = np.flatnonzero(np.isin(table.ids[:, 0], retracted[:, 0]) & (reason == _USABLE))
        pairs = {(int(high), int(low)) for high, low in retracted}
        hits = [i for i in candidates if (int(table.ids[i, 0]), int(table.ids[i, 1])) in pairs]
        reason[hits] = _TOMBSTONED
    return reason, size


def _retracted(workspace: Path) -> U64:
    path = tombstones_path(workspace)
    if not path.is_file():
        return np.zeros((0, 2), dtype=np.uint64)
    return id_words(pq.read_table(path, columns=["sample_id"])["sample_id"].cast(pa.string()))


def _num_steps(config: PlanConfig, usable: int) -> int:
    if config.steps is not None:
        return config.steps
    assert config.epochs is not None
    num_steps = int(config.epochs * usable) // config.global_batch_size
    if num_steps == 0:
        raise ConfigError(
            f"epochs: {config.epochs:g} x {usable} usable samples do not fill one step of {config.global_batch_size}; "
            "lower global_batch_size or give steps"
        )
    return num_steps


def _check_epochs(config: PlanConfig, draws: Sequence[int], usable: Sequence[int]) -> None:
    for dataset, drawn, size in zip(config.mixture.datasets, draws, usable, strict=True):
        allowed = dataset.max_epochs or max(config.mixture.max_epochs, config.epochs or 0)
        # Quotas are met to within one draw, so a whole number of epochs may overshoot by one.
        if drawn > allowed * size + 1:
            raise ConfigError(
                f"dataset {dataset.name!r}: the mixture draws {drawn} samples from {size} usable ones, "
                f"{drawn / size:.2f} epochs, and max_epochs is {allowed:g}; lower steps or its weight, "
                "raise max_epochs, or build more samples"
            )


def _order(
    config: PlanConfig,
    tables: Sequence[CostTable],
    reasons: Sequence[npt.NDArray[np.uint8]],
    drawn_N: npt.NDArray[np.uint8],
    offsets: Sequence[int],
) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Put sample positions into the draws: each dataset's epochs, one permutation after another."""
    dtype: type[np.uint32] | type[np.uint64] = np.uint32 if offsets[-1] < 1 << 32 else np.uint64
    order_N = np.empty(len(drawn_N), dtype=dtype)
    for number, (table, reason) in enumerate(zip(tables, reasons, strict=True)):
        # Retracted samples take part in the shuffle and are passed over after it.
        candidates = np.flatnonzero((reason == _USABLE) | (reason == _TOMBSTONED))
        group = None
        if config.shuffle == "groups":
            group = _shard_groups(table, config)[candidates]
        sequence: list[npt.NDArray[np.int64]] = []
        is_mine_N = drawn_N == number
        wanted, epoch = int(np.count_nonzero(is_mine_N)), 0
        while wanted > 0:
            permuted = candidates[shuffled(table.keys[candidates], config.seed, epoch, group)]
            permuted = permuted[reason[permuted] == _USABLE][:wanted]
            sequence.append(permuted + offsets[number])
            wanted -= len(permuted)
            epoch += 1
        if sequence:
            order_N[is_mine_N] = np.concatenate(sequence)
    return order_N


def _shard_groups(table: CostTable, config: PlanConfig) -> npt.NDArray[np.int64]:
    """Group neighbouring shards: a group is read and shuffled as one."""
    return table.shard_numbers() // config.shard_group


def _counts(
    tables: Sequence[CostTable],
    reasons: Sequence[npt.NDArray[np.uint8]],
    order_N: npt.NDArray[Any],
    offsets: Sequence[int],
) -> Counts:
    """Account for every kept sample of the mixture: planned at least once, whole or in part, or not, and why."""
    planned = np.zeros(offsets[-1], dtype=np.bool_)
    planned[order_N] = True
    seen = kept = 0
    dropped: Counter[str] = Counter()
    for table, reason, offset in zip(tables, reasons, offsets, strict=False):
        is_planned = planned[offset : offset + len(table)]
        is_planned[table.parts["position"][is_planned[table.num_samples :]]] = True
        seen += table.num_samples
        kept += int(np.count_nonzero(is_planned[: table.num_samples]))
        why_not = reason[: table.num_samples][~is_planned[: table.num_samples]]
        for code in np.unique(why_not).tolist():
            dropped[_REASON_NAMES.get(code, "over_quota")] += int(np.count_nonzero(why_not == code))
    return Counts(seen=seen, kept=kept, dropped={name: count for name, count in sorted(dropped.items()) if count})


def _save(path: Path, array: npt.NDArray[Any]) -> None:
    with atomic_writer(path) as handle:
        np.save(handle, array, allow_pickle=False)

"""The same samples at any world size, worker count and accumulation; drops counted, stale data refused."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from owl3 import lifeline
from owl3.data.collate import IGNORED, MicroBatch
from owl3.data.loader import Step, StepLoader
from owl3.data.slots import Slots
from owl3.errors import InputError, StaleError
from owl3.manifest import Counts, write_manifest
from owl3.planfile import Plan
from owl3.samples import Sample
from owl3.shards import SAMPLE_INDEX, ShardWriter, iter_samples, read_member, write_index
from owl3.template import render, tokenize
from owl3.tokens import TextTokenizer, save_tokenizer
from tests.data.conftest import TILE_PX, MakeSamples, conversation, draw_samples, write_samples
from tests.data.test_plan import config, planned


def write_and_plan(workspace: Path, tokenizer: TextTokenizer) -> Plan:
    draw_samples(workspace, tokenizer, "photos", 30, words=(2, 30))
    draw_samples(workspace, tokenizer, "pages", 30, images=(0, 4), words=(2, 30))
    return planned(workspace, config("photos", "pages", max_tokens=150))


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory, tokenizer: TextTokenizer) -> Plan:
    """A plan whose samples no test changes."""
    return write_and_plan(tmp_path_factory.mktemp("workspace"), tokenizer)


@pytest.fixture
def plan(workspace: Path, tokenizer: TextTokenizer) -> Plan:
    """A plan of the test's own workspace."""
    return write_and_plan(workspace, tokenizer)


def load(plan: Plan, workspace: Path, tokenizer: TextTokenizer, **how: object) -> list[Step]:
    return list(StepLoader(plan.folder, workspace, tokenizer, tile_px=TILE_PX, **how))  # type: ignore[arg-type]


def ids(step: Step) -> list[str]:
    return [i for batch in step.micro_batches for row in batch.sample_ids for i in row]


def global_batches(
    plan: Plan, workspace: Path, tokenizer: TextTokenizer, world_size: int, **how: object
) -> list[list[str]]:
    """Sample ids of each step, over all ranks, sorted: rows may be computed anywhere."""
    ranks = [load(plan, workspace, tokenizer, rank=r, world_size=world_size, **how) for r in range(world_size)]
    assert len({tuple(len(step.micro_batches) for step in rank) for rank in ranks}) == 1
    for steps in zip(*ranks, strict=True):
        total = np.sum([step.fingerprint for step in steps], axis=0, dtype=np.uint64)
        assert total.tolist() == plan.steps[steps[0].index]["fingerprint"].tolist()
    return [sorted(i for rank in ranks for i in ids(rank[n])) for n in range(len(ranks[0]))]


def expected(plan: Plan, workspace: Path) -> list[list[str]]:
    rows = plan.sample_rows(workspace, plan.order.tolist(), ["sample_id"])
    all_ids = [row["sample_id"] for row in rows]
    return [sorted(all_ids[n : n + 8]) for n in range(0, len(all_ids), 8)]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("micro_batch_rows", [1, 2, 4])
def test_global_batches_are_the_plans_at_any_world_size(
    fixed: Plan, tokenizer: TextTokenizer, world_size: int, micro_batch_rows: int
) -> None:
    batches = global_batches(fixed, fixed.folder.parents[2], tokenizer, world_size, micro_batch_rows=micro_batch_rows)
    assert batches == expected(fixed, fixed.folder.parents[2])


@pytest.mark.processes
@pytest.mark.parametrize("num_workers", [1, 3])
def test_workers_change_no_bit_of_a_batch(fixed: Plan, tokenizer: TextTokenizer, num_workers: int) -> None:
    alone = load(fixed, fixed.folder.parents[2], tokenizer, micro_batch_rows=2)
    helped = load(fixed, fixed.folder.parents[2], tokenizer, micro_batch_rows=2, num_workers=num_workers)
    for one, two in zip(alone, helped, strict=True):
        for a, b in zip(one.micro_batches, two.micro_batches, strict=True):
            assert a.sample_ids == b.sample_ids
            assert {name: t.tolist() for name, t in a.text.items()} == {name: t.tolist() for name, t in b.text.items()}
            assert a.tiles is None if b.tiles is None else torch.equal(a.tiles, b.tiles)  # type: ignore[arg-type]


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The slots that jobs are given, as they are given."""
    slots: list[int | None] = []
    take = Slots.take

    def take_and_note(self: Slots) -> int | None:
        slots.append(take(self))
        return slots[-1]

    monkeypatch.setattr(Slots, "take", take_and_note)
    return slots


@pytest.mark.processes
def test_pictures_are_the_same_whether_their_memory_is_used_again_or_not(
    fixed: Plan, tokenizer: TextTokenizer, given: list[int | None]
) -> None:
    """Held to the end, more batches are out than there are slots; dropped at once, slots go round."""
    held = load(fixed, fixed.folder.parents[2], tokenizer, num_workers=1)
    assert None in given
    given.clear()
    loader = StepLoader(fixed.folder, fixed.folder.parents[2], tokenizer, tile_px=TILE_PX, num_workers=1)
    for step in loader:
        for a, b in zip(step.micro_batches, held[step.index].micro_batches, strict=True):
            assert a.tiles is None if b.tiles is None else torch.equal(a.tiles, b.tiles)  # type: ignore[arg-type]
        del step, a, b
    assert None not in given
    assert len(given) > 3 * len(set(given))


@pytest.mark.processes
def test_a_batch_whose_pictures_are_all_broken_keeps_no_memory(
    workspace: Path, tokenizer: TextTokenizer, given: list[int | None]
) -> None:
    samples = [conversation("photos", i, 1, 5) for i in range(32)]
    write_samples(workspace, tokenizer, "photos", samples, media=lambda *_: b"no picture")
    plan = planned(workspace, config("photos", steps=4))
    steps = load(plan, workspace, tokenizer, num_workers=1)
    assert all(batch.tiles is None for step in steps for batch in step.micro_batches)
    assert sum(len(step.drops) for step in steps) == 32
    assert None not in given
    assert len(given) > len(set(given))


@pytest.mark.parametrize(("before", "after", "step"), [(1, 2, 3), (4, 3, 7), (2, 8, 9)])
def test_resuming_elsewhere_gives_the_same_remaining_samples(
    fixed: Plan, tokenizer: TextTokenizer, before: int, after: int, step: int
) -> None:
    whole = global_batches(fixed, fixed.folder.parents[2], tokenizer, before)
    rest = global_batches(fixed, fixed.folder.parents[2], tokenizer, after, start_step=step)
    assert rest == whole[step:]


def test_a_packed_row_is_its_samples_side_by_side(fixed: Plan, tokenizer: TextTokenizer) -> None:
    samples = stored_samples(fixed.folder.parents[2])
    for step in load(fixed, fixed.folder.parents[2], tokenizer, micro_batch_rows=3):
        for batch in step.micro_batches:
            text = {name: tensor.numpy() for name, tensor in batch.text.items()}
            for b, row_ids in enumerate(batch.sample_ids):
                start = 0
                for number, sample_id in enumerate(row_ids, start=1):
                    segments, turns = samples[sample_id].segments, samples[sample_id].turns
                    whole = tokenize(render(segments, turns, release="241101"), tokenizer)
                    here = slice(start, start + len(whole.input_ids))
                    assert text["input_ids"][b, here].tolist() == whole.input_ids
                    assert (text["segment_ids"][b, here] == number).all()
                    assert text["position_ids"][b, here].tolist() == list(range(len(whole.input_ids)))
                    labels = [t if on else IGNORED for t, on in zip(whole.input_ids, whole.trained, strict=True)]
                    assert text["labels"][b, here].tolist() == labels
                    mine = starts_in(batch, b, here)
                    assert [s - start for s in mine] == whole.image_starts
                    start = here.stop
                assert (text["segment_ids"][b, start:] == 0).all()
                assert (text["labels"][b, start:] == IGNORED).all()


def starts_in(batch: MicroBatch, row: int, columns: slice) -> list[int]:
    if "image_rows" not in batch.text:
        return []
    pairs = zip(batch.text["image_rows"].tolist(), batch.text["image_starts"].tolist(), strict=True)
    return [s for b, s in pairs if b == row and columns.start <= s < columns.stop]


def stored_samples(workspace: Path) -> dict[str, Sample]:
    """All samples of the workspace, read front to back as webdataset would."""
    tars = sorted(workspace.glob("samples/*/*.tar"))
    found = [Sample.model_validate_json(members["json"]) for tar in tars for _, members in iter_samples(tar)]
    return {sample.id: sample for sample in found}


def test_the_loss_divisor_is_the_number_of_labels_over_all_ranks(fixed: Plan, tokenizer: TextTokenizer) -> None:
    ranks = [load(fixed, fixed.folder.parents[2], tokenizer, rank=r, world_size=3) for r in range(3)]
    for steps in zip(*ranks, strict=True):
        assert sum(b.trained_tokens for s in steps for b in s.micro_batches) == steps[0].trained_tokens


def test_ranks_carry_nearly_equal_pictures(
    workspace: Path, make_samples: MakeSamples, tokenizer: TextTokenizer
) -> None:
    make_samples("pages", 64, images=(0, 4), words=(2, 10))
    plan = planned(workspace, config("pages", global_batch_size=64, steps=3, max_tokens=150, max_tiles=6))
    for steps in zip(*(load(plan, workspace, tokenizer, rank=r, world_size=2) for r in range(2)), strict=True):
        tiles = [sum(batch.images for batch in step.micro_batches) for step in steps]
        assert max(tiles) <= 1.1 * min(tiles)


def test_pictures_become_floats_as_the_released_processor_makes_them(fixed: Plan, tokenizer: TextTokenizer) -> None:
    batch = next(b for s in load(fixed, fixed.folder.parents[2], tokenizer) for b in s.micro_batches if b.images)
    assert batch.tiles is not None
    pixels = batch.inputs["pixel_values"]
    assert pixels.shape == (batch.images, 3, TILE_PX, TILE_PX)
    assert torch.allclose(pixels, (batch.tiles.float() / 255 - 0.5) / 0.5, atol=1e-6)


def test_cut_pictures_cost_what_was_planned(
    workspace: Path, make_samples: MakeSamples, tokenizer: TextTokenizer
) -> None:
    make_samples("photos", 16)
    mixture = {"datasets": [{"name": "photos", "cut": 0.5}]}
    plan = planned(workspace, config(mixture=mixture, steps=2, max_tokens=300, max_tiles=30))
    steps = load(plan, workspace, tokenizer)
    tiles = sum(batch.images for step in steps for batch in step.micro_batches)
    assert tiles == int(plan.steps["tiles"].sum())
    assert 16 < tiles < 16 * 7


def test_samples_made_anew_are_refused(
    plan: Plan, workspace: Path, make_samples: MakeSamples, tokenizer: TextTokenizer
) -> None:
    (workspace / "samples" / "photos").rename(workspace / "samples" / "old")
    make_samples("photos", 31)
    with pytest.raises(StaleError, match=r"samples/photos: was made anew after .* was planned"):
        load(plan, workspace, tokenizer)


@pytest.mark.parametrize(
    ("damage", "message"), [("truncate", "it has"), ("rewrite", "no tar member begins"), ("remove", "missing")]
)
def test_a_shard_changed_during_training_is_named(
    plan: Plan, workspace: Path, tokenizer: TextTokenizer, damage: str, message: str
) -> None:
    steps = iter(StepLoader(plan.folder, workspace, tokenizer, tile_px=TILE_PX))
    for tar in (workspace / "samples" / "photos").glob("*.tar"):
        data = tar.read_bytes()
        tar.unlink()
        if damage != "remove":
            tar.write_bytes(data[:-512] if damage == "truncate" else data[512:] + data[:512])
    with pytest.raises(InputError, match=rf"samples/photos/0000\d\.tar: {message}"):
        list(steps)


def test_more_ranks_than_rows_still_keep_step(
    workspace: Path, make_samples: MakeSamples, tokenizer: TextTokenizer
) -> None:
    make_samples("photos", 8, words=(2, 3))
    plan = planned(workspace, config("photos", steps=1, max_tokens=1000, max_tiles=8))
    assert len(plan.rows(0)) == 1
    idle = load(plan, workspace, tokenizer, rank=1, world_size=2)[0].micro_batches[0]
    assert idle.rows == ()
    assert idle.trained_tokens == 0
    assert idle.inputs["input_ids"].shape == (1, 1)
    assert "pixel_values" not in idle.inputs


def test_media_that_lie_in_the_parents_tar_are_read_and_proved(workspace: Path, tokenizer: TextTokenizer) -> None:
    samples = [conversation("photos", i, 2, 5) for i in range(8)]
    write_samples(workspace, tokenizer, "photos", samples)
    plan = planned(workspace, config("photos", steps=1, max_tokens=400), "bytes")
    whole = load(plan, workspace, tokenizer)[0].micro_batches
    samples_by_reference(workspace, tokenizer, samples)
    plan = planned(workspace, config("references", steps=1, max_tokens=400), "references")
    referred = load(plan, workspace, tokenizer)[0].micro_batches
    for one, other in zip(whole, referred, strict=True):
        assert one.tiles is not None and other.tiles is not None
        assert torch.equal(one.tiles, other.tiles)
    tar = workspace / "samples" / "photos" / "00000.tar"
    data = tar.read_bytes()
    tar.write_bytes(data[:1600] + bytes(40) + data[1640:])
    with pytest.raises(StaleError, match=r"photos/00000\.tar: the medium at byte \d+ is not the one"):
        load(plan, workspace, tokenizer)


def samples_by_reference(workspace: Path, tokenizer: TextTokenizer, samples: list[Sample]) -> None:
    """Write `samples/references`: the same samples, their media left in `samples/photos`."""
    rows = [row for i in (0, 1) for row in pq.read_table(workspace / f"samples/photos/0000{i}.parquet").to_pylist()]
    folder = workspace / "samples" / "references"
    kept = {row["sample_id"]: row for row in rows if row["decision"] == "kept"}
    with ShardWriter(folder / "00000.tar") as tar:
        for position, sample in enumerate(samples):
            (member,) = tar.add(sample.id, {"json": sample.to_json()})
            kept[sample.id] |= {"shard": "00000", "position": position, "json_offset": member.offset}
            for medium in kept[sample.id]["media"]:
                data = read_member(workspace / medium["path"], medium["offset"], medium["bytes"])
                medium["sha256"] = hashlib.sha256(data).hexdigest()
    write_index(folder / "00000.parquet", [kept[sample.id] for sample in samples], SAMPLE_INDEX)
    stats = {"tokenizer_digest": tokenizer.digest, "release": "241101", "tile_px": TILE_PX}
    write_manifest(folder, kind="samples", name="references", counts=Counts(seen=8, kept=8), stats=stats)


@pytest.mark.processes
def test_a_program_may_end_before_the_plan_does(
    fixed: Plan, tokenizer: TextTokenizer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Workers ignore the signal that torch ends them with; a half-used loader must not keep a program from ending."""
    workspace, folder = fixed.folder.parents[2], tmp_path_factory.mktemp("ends")
    save_tokenizer(tokenizer, folder)
    script = (
        "import sys; from pathlib import Path\n"
        "from owl3.data.loader import StepLoader; from owl3.tokens import TextTokenizer\n"
        "plan, workspace, tokenizer = map(Path, sys.argv[1:4])\n"
        "words = TextTokenizer.load(tokenizer)\n"
        "loader = StepLoader(plan, workspace, words, tile_px=int(sys.argv[4]), num_workers=1)\n"
        "steps = iter(loader); print(next(steps).index)"
    )
    command = [sys.executable, "-c", script, str(fixed.folder), str(workspace), str(folder), str(TILE_PX)]
    done = subprocess.run(lifeline.wrap(command), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr

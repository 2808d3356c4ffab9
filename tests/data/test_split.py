"""Long samples are cut where each part stands on its own, and nothing is lost or said twice."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from owl3.data.loader import StepLoader
from owl3.data.split import cut_points, media_of, part_of
from owl3.errors import InputError
from owl3.planfile import Plan
from owl3.samples import Sample, Segment, Turn, short_hash
from owl3.tokens import TextTokenizer, save_tokenizer
from tests.data.conftest import TILE_PX, write_samples
from tests.data.test_plan import config, planned


def document(pieces: str, name: str = "page") -> Sample:
    """`t` is a text, `i` an image."""
    images = 0
    segments = []
    for number, piece in enumerate(pieces):
        segments.append(Segment(text=f"words {number} ") if piece == "t" else Segment(image=images))
        images += piece == "i"
    return Sample(id=short_hash(name), kind="interleaved", segments=tuple(segments), source="web", licence="CC0-1.0")


def talk(*exchanges: str, system: bool = False, name: str = "talk") -> Sample:
    """Each exchange is what the user says, then one answer."""
    segments, turns, images = [], [], 0
    if system:
        segments.append(Segment(text="be brief"))
        turns.append(Turn(role="system", start=0, end=1))
    for said in exchanges:
        start = len(segments)
        for piece in said:
            segments.append(Segment(image=images) if piece == "i" else Segment(text="which one?"))
            images += piece == "i"
        turns.append(Turn(role="user", start=start, end=len(segments)))
        segments.append(Segment(text=f"answer {start}"))
        turns.append(Turn(role="assistant", start=len(segments) - 1, end=len(segments)))
    return Sample(
        id=short_hash(name),
        kind="instruct",
        segments=tuple(segments),
        turns=tuple(turns),
        source="web",
        licence="CC0-1.0",
    )


def at_most(size: int):  # type: ignore[no-untyped-def]
    """A row that holds `size` segments."""
    return lambda sample: len(sample.segments) <= size


@settings(deadline=None)
@given(st.text("ti", min_size=1, max_size=14), st.integers(1, 6))
def test_a_documents_parts_are_the_document(pieces: str, size: int) -> None:
    sample = document(pieces)
    ranges = cut_points(sample, at_most(size))
    if not ranges:
        return
    assert [start for start, _ in ranges] == [0, *(end for _, end in ranges)][:-1]
    assert ranges[-1][1] == len(pieces)
    parts = [part_of(sample, *part) for part in ranges]
    assert [s.text for part in parts for s in part.segments] == [s.text for s in sample.segments]
    assert [m for part in ranges for m in media_of(sample, *part)] == list(range(sample.num_media))
    assert all(len(part.segments) <= size for part in parts)
    # Pictures go with the words after them: only the last part may end with one.
    assert all(part.segments[-1].text is not None for part in parts[:-1])
    for part in parts:
        Sample.model_validate(part.model_dump())  # media numbered anew, from 0


def test_a_long_page_is_cut_without_trying_every_range() -> None:
    tried = list[int]()

    def holds(part: Sample) -> bool:
        tried.append(len(part.segments))
        return len(part.segments) <= 5

    assert len(cut_points(document("it" * 200), holds)) == 100  # four each: a part ends with words
    assert max(tried) <= 6
    assert len(tried) <= 700


def test_a_run_of_pictures_that_fits_no_row_is_not_cut() -> None:
    assert cut_points(document("tiiiit"), at_most(3)) == []


def test_exchanges_stay_whole_and_keep_the_system_turn() -> None:
    sample = talk("it", "it", "it", system=True)
    ranges = cut_points(sample, at_most(7))
    parts = [part_of(sample, *part) for part in ranges]
    assert [len(part.turns) for part in parts] == [5, 3]
    assert all(part.turns[0].role == "system" for part in parts)
    assert [part.num_media for part in parts] == [2, 1]


def test_a_talk_about_one_picture_is_not_cut_from_it() -> None:
    assert cut_points(talk("it", "t", "t"), at_most(4)) == []
    assert len(cut_points(talk("t", "t", "t"), at_most(4))) == 2


def plan_of(workspace: Path, tokenizer: TextTokenizer, samples: list[Sample], policy: str) -> Plan:
    save_tokenizer(tokenizer, workspace / "tokenizers" / "tiny")
    if not (workspace / "samples" / "pages").exists():
        write_samples(workspace, tokenizer, "pages", samples)
    cfg = config("pages", global_batch_size=4, steps=6, max_tokens=60, max_tiles=3, long_samples=policy)
    return planned(workspace, cfg, policy)


def test_a_plan_holds_the_parts_and_the_loader_gives_them(workspace: Path, tokenizer: TextTokenizer) -> None:
    samples = [document("ittititit" * 2, f"long {i}") for i in range(4)] + [
        document("it", f"short {i}") for i in range(4)
    ]
    samples.append(talk("it", *["t"] * 12, name="one picture"))
    dropped = plan_of(workspace, tokenizer, samples, "drop")
    assert dropped.manifest.counts.dropped == {"over_row_length": 5}
    plan = plan_of(workspace, tokenizer, samples, "split")
    assert plan.manifest.counts.kept == 8
    assert plan.manifest.counts.dropped == {"over_row_length": 1}
    assert plan.manifest.stats["split_samples"] == 4
    seen: set[str] = set()
    for step in StepLoader(plan.folder, workspace, tokenizer, tile_px=TILE_PX):
        assert step.fingerprint.tolist() == plan.steps[step.index]["fingerprint"].tolist()
        seen |= {name for batch in step.micro_batches for names in batch.sample_ids for name in names}
    assert seen == {sample.id for sample in samples[:8]}
    long = samples[0].id
    (position,) = plan.find(workspace, long)
    assert plan.steps_of([position])
    assert position in plan.seen_before(plan.num_steps)
    assert all(plan.base_of(p) < 9 for p in plan.order.tolist())


def test_splitting_needs_the_tokenizer(workspace: Path, tokenizer: TextTokenizer) -> None:
    write_samples(workspace, tokenizer, "pages", [document("it" * 20, f"long {i}") for i in range(4)])
    with pytest.raises(InputError, match=r"no tokenizer [0-9a-f]{12}, which cutting long samples needs"):
        planned(workspace, config("pages", max_tokens=60, max_tiles=3, long_samples="split"))

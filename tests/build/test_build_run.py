"""`build`: exact counts, nothing lost, the same bytes however it was made."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from owl3.build.config import BUILD_CONFIG, BuildConfig
from owl3.build.draw import Run
from owl3.build.run import build
from owl3.build.write import ShardBuilder
from owl3.config import Config, validate
from owl3.errors import ConfigError, InputError, StaleError
from owl3.manifest import Manifest, verify_files
from owl3.samples import Sample
from owl3.shards import iter_samples, read_member
from tests.build.world import curated_row, picture, write_shards


class Section(Config):
    """A recipe with nothing but builds."""

    build: tuple[BuildConfig, ...]


def config(builder: str, **fields: Any) -> BuildConfig:
    """A build section with the test's tokenizer."""
    return BUILD_CONFIG.validate_python({"name": "made", "tokenizer": "tiny", "builder": builder, **fields})


def index_of(workspace: Path, name: str = "made") -> list[dict[str, Any]]:
    """All index rows of a sample set."""
    return [
        row
        for path in sorted((workspace / "samples" / name).glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]


def samples_of(workspace: Path, name: str = "made") -> list[Sample]:
    """All kept samples, in order."""
    tars = sorted((workspace / "samples" / name).glob("*.tar"))
    return [Sample.model_validate_json(members["json"]) for tar in tars for _, members in iter_samples(tar)]


def made_bytes(workspace: Path, name: str = "made") -> dict[str, bytes]:
    """Everything that was written."""
    return {
        path.name: path.read_bytes() for path in sorted((workspace / "samples" / name).iterdir()) if path.name[0] == "0"
    }


def test_every_pair_becomes_a_sample(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(45)
    manifest = build(config("caption", shards=["photos"], samples_per_shard=20), workspace)
    assert (manifest.counts.seen, manifest.counts.kept) == (45, 45)
    assert [path.name for path in sorted((workspace / "samples/made").glob("*.tar"))] == [
        "00000.tar",
        "00001.tar",
        "00002.tar",
    ]
    assert [sample.segments[1].text for sample in samples_of(workspace)][:2] == [
        "a red star number 0",
        "a green star number 1",
    ]
    assert not (workspace / "samples/made/.work").exists()
    assert verify_files(workspace / "samples/made", manifest) == []


def test_media_are_copied_byte_for_byte_to_where_the_index_says(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(5)
    build(config("caption", shards=["photos"]), workspace)
    for number, row in enumerate(index_of(workspace)):
        place = row["media"][0]
        assert read_member(workspace / place["path"], place["offset"], place["bytes"]) == curated_row(number)["data"]
        assert (place["width"], place["height"]) == (48, 32)
        json_bytes = read_member(workspace / "samples/made/00000.tar", row["json_offset"], row["json_bytes"])
        assert Sample.model_validate_json(json_bytes).id == row["sample_id"]


def test_references_point_into_the_parents_tar(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(5)
    build(config("caption", shards=["photos"], store="references"), workspace)
    tar = workspace / "samples/made/00000.tar"
    assert all(list(members) == ["json"] for _, members in iter_samples(tar))
    for number, row in enumerate(index_of(workspace)):
        place = row["media"][0]
        assert place["path"] == "shards/photos/00000.tar"
        assert read_member(workspace / place["path"], place["offset"], place["bytes"]) == curated_row(number)["data"]


@pytest.mark.processes
def test_the_bytes_do_not_depend_on_the_number_of_processes(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(60)
    made, digests = [], []
    for processes in (1, 2, 3):
        cfg = config("interleaved_caption", shards=["photos"], count=30, max_uses=4, samples_per_shard=4)
        digests.append(build(cfg, workspace, processes=processes).digest)
        made.append(made_bytes(workspace))
        (workspace / "samples/made").rename(workspace / f"samples/kept{processes}")
    assert digests[0] == digests[1] == digests[2]
    assert made[0] == made[1] == made[2]


def test_a_killed_build_goes_on_and_ends_in_the_same_digest(
    workspace: Path, photos: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(60)
    cfg = config("interleaved_caption", shards=["photos"], samples_per_shard=2)
    whole = build(cfg, workspace, processes=1)
    (workspace / "samples/made").rename(workspace / "samples/whole")
    write, written = ShardBuilder.write, list[int]()

    def dying_write(self: ShardBuilder, run: Run) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(run.shard)
        write(self, run)

    monkeypatch.setattr(ShardBuilder, "write", dying_write)
    with pytest.raises(KeyboardInterrupt):
        build(cfg, workspace, processes=1)
    assert not (workspace / "samples/made/manifest.json").exists()
    assert len(written) == 3
    monkeypatch.setattr(ShardBuilder, "write", lambda self, run: (written.append(run.shard), write(self, run))[1])
    assert build(cfg, workspace, processes=1).digest == whole.digest
    assert written == sorted(set(written)), "only what was missing is written"


KILLED = """
import sys
from pathlib import Path
from owl3.build.config import BUILD_CONFIG
from owl3.build.run import build
if __name__ == "__main__":
    fields = {"name": "made", "builder": "interleaved_caption", "tokenizer": "tiny", "shards": ["photos"]}
    fields |= {"samples_per_shard": 1, "max_uses": 40}
    build(BUILD_CONFIG.validate_python(fields), Path(sys.argv[1]), processes=1)
"""


@pytest.mark.processes
def test_a_build_killed_at_any_moment_ends_in_the_same_bytes(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(40)
    (workspace / "killed.py").write_text(KILLED)
    for shards_before_kill in (1, 60):
        process = subprocess.Popen([sys.executable, str(workspace / "killed.py"), str(workspace)])
        folder = workspace / "samples/made"
        while not (folder / f"{shards_before_kill:05d}.parquet").exists():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
                pytest.fail("the build ended before it could be killed")
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it was killed while it worked"
    cfg = config("interleaved_caption", shards=["photos"], samples_per_shard=1, max_uses=40)
    resumed = build(cfg, workspace, processes=1)
    after_kills = made_bytes(workspace)
    shutil.rmtree(folder)
    assert build(cfg, workspace, processes=1).digest == resumed.digest
    assert made_bytes(workspace) == after_kills
    assert not any(path.name.startswith(".") and path.name != ".lock" for path in folder.iterdir())


def test_a_build_that_is_done_does_nothing(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(10)
    cfg = config("caption", shards=["photos"])
    first = build(cfg, workspace)
    before = {path: path.stat().st_mtime_ns for path in (workspace / "samples/made").iterdir() if path.name != ".lock"}
    assert build(cfg, workspace).digest == first.digest
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_another_recipe_does_not_overwrite(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(10)
    build(config("caption", shards=["photos"]), workspace)
    with pytest.raises(StaleError, match="seed"):
        build(config("caption", shards=["photos"], seed=1), workspace)


def test_the_digest_does_not_depend_on_where_the_workspace_is(
    workspace: Path, photos: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    photos(8)
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "deep"
    qa = [
        {
            "image": curated_row(0)["url"],
            "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}],
        }
    ]
    digests = []
    for root in (workspace, elsewhere):
        if root == elsewhere:
            elsewhere.mkdir()
            for name in ("shards", "tokenizers"):
                (elsewhere / name).symlink_to(workspace / name)
        (root / "qa.json").write_text(json.dumps(qa))
        cfg = config("instruct", shards=["photos"], files=[str(root / "qa.json")])
        digests.append(build(cfg, root).digest)
    assert digests[0] == digests[1]


def test_a_count_is_exact_although_some_attempts_are_dropped(workspace: Path) -> None:
    rows = [curated_row(number, caption=" " if number % 3 == 0 else f"caption {number}") for number in range(60)]
    write_shards(workspace, "photos", rows)
    manifest = build(config("caption", shards=["photos"], count=30, samples_per_shard=7), workspace)
    assert manifest.counts.kept == 30
    assert manifest.counts.seen == 30 + manifest.counts.dropped["empty_text"]


def test_a_count_beyond_the_parents_is_an_error_that_says_what_is_there(
    workspace: Path, photos: Callable[..., Path]
) -> None:
    photos(20)
    with pytest.raises(InputError, match=r"count: 50 samples wanted, but the parents are enough for 20"):
        build(config("caption", shards=["photos"], count=50), workspace)


def test_max_uses_caps_how_often_a_picture_is_used(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(30)
    cfg = config("interleaved_caption", shards=["photos"], max_uses=3)
    manifest = build(cfg, workspace)
    assert manifest.stats["parents_used"]["max_uses"] <= 3
    assert manifest.stats["parents_used"]["distinct"] == 30


def test_a_picture_with_several_captions_stands_in_a_sample_once(workspace: Path) -> None:
    rows = [curated_row(number // 3, caption=f"caption {number}") for number in range(60)]
    write_shards(workspace, "photos", rows)
    manifest = build(config("interleaved_caption", shards=["photos"], images=[5, 5]), workspace)
    assert manifest.stats["parents"] == {"seen": 60, "usable": 20, "dropped": {"duplicate_exact": 40}}
    for row in index_of(workspace):
        assert len({medium["sha256"] for medium in row["media"]}) == 5


def test_retracted_parents_are_never_drawn(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(10)
    ids = [row["sample_id"] for row in pq.read_table(workspace / "shards/photos/00000.parquet").to_pylist()]
    pq.write_table(pa.table({"sample_id": ids[:4]}), workspace / "tombstones.parquet")
    manifest = build(config("caption", shards=["photos"]), workspace)
    assert manifest.counts.kept == 6
    assert manifest.stats["parents"]["dropped"] == {"tombstoned": 4}


def damage(workspace: Path, every: int) -> None:
    """Overwrite some media inside the parents' tar."""
    table = pq.read_table(workspace / "shards/photos/00000.parquet").to_pylist()
    with (workspace / "shards/photos/00000.tar").open("r+b") as tar:
        for row in table[::every]:
            tar.seek(row["media_offset"] + 10)
            tar.write(b"damage")


def test_damaged_media_drop_their_samples_by_reason(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(20)
    damage(workspace, 5)
    manifest = build(config("caption", shards=["photos"]), workspace)
    assert manifest.counts.model_dump() == {"seen": 20, "kept": 16, "dropped": {"hash_mismatch": 4}}
    dropped = [row for row in index_of(workspace) if row["decision"] == "dropped"]
    assert {row["reason"] for row in dropped} == {"hash_mismatch"}
    assert all(row["parents"] for row in dropped)


def test_missing_images_may_shrink_a_sample_while_enough_are_left(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(20)
    damage(workspace, 10)
    fields = {"shards": ["photos"], "images": [4, 5], "max_drop_fraction": 1.0}
    shrunk = build(config("interleaved_caption", on_missing="shrink", **fields), workspace)
    dropping = build(config("interleaved_caption", **{**fields, "name": "dropping"}), workspace)
    assert dropping.counts.dropped.keys() == {"hash_mismatch"}
    assert set(shrunk.counts.dropped) <= {"too_few_images"}
    assert shrunk.counts.kept >= dropping.counts.kept
    assert all(4 <= sample.num_media <= 5 for sample in samples_of(workspace))


def test_a_truncated_shard_fails_after_a_hundred_in_a_row(workspace: Path) -> None:
    write_shards(workspace, "photos", [curated_row(number) for number in range(120)], per_shard=120)
    tar = workspace / "shards/photos/00000.tar"
    tar.write_bytes(tar.read_bytes()[:4000])
    with pytest.raises(InputError, match=r"100 samples in a row failed.*missing_media.*00000.tar"):
        build(config("caption", shards=["photos"]), workspace)


def test_too_many_drops_are_an_error(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(20, caption="")
    with pytest.raises(InputError, match=r"not one sample was kept \(empty_text 20\)"):
        build(config("caption", shards=["photos"]), workspace)


def test_budgets_drop_by_reason(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(20)
    cfg = config("interleaved_caption", shards=["photos"], images=[3, 6], max_text_tokens=45, max_drop_fraction=1.0)
    manifest = build(cfg, workspace)
    assert manifest.counts.dropped.keys() == {"too_many_tokens"}
    assert all(row["text_tokens"] <= 45 for row in index_of(workspace) if row["decision"] == "kept")


def test_pictures_are_made_smaller_only_when_asked(workspace: Path) -> None:
    rows = [curated_row(number, data=picture(number, (200, 100)), width=200, height=100) for number in range(3)]
    write_shards(workspace, "photos", rows)
    build(config("caption", shards=["photos"], max_side_px=50), workspace)
    places = [row["media"][0] for row in index_of(workspace)]
    assert {(place["width"], place["height"]) for place in places} == {(50, 25)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"builder": "interleaved_caption", "images": [5, 3]}, "images .5, 3. is not a range"),
        (
            {"builder": "caption", "store": "references", "max_side_px": 64},
            "store: references can't go with max_side_px",
        ),
        ({"builder": "video", "store": "references"}, "store: references can't go with video"),
        (
            {"builder": "instruct", "files": ["a.json"], "media_root": "m", "store": "references"},
            "store: references can't go with media_root",
        ),
        ({"builder": "caption", "count": 0}, "count must be at least 1"),
        ({"builder": "selective_caption", "policy": "embedding"}, "policy: embedding and embeddings: FILE belong"),
        ({"builder": "interleaved_caption", "images": [3, 500]}, "images go up to 500, but max_images is 400"),
    ],
)
def test_settings_that_contradict_are_refused(fields: dict[str, Any], message: str) -> None:
    entry = {"name": "x", "tokenizer": "t", "shards": ["s"], **fields}
    with pytest.raises(ConfigError, match=message):
        validate({"build": [entry]}, Section, where="r.yaml")


def test_missing_parents_are_named(workspace: Path) -> None:
    with pytest.raises(InputError, match="shards/nowhere"):
        build(config("caption", shards=["nowhere"]), workspace)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    blanks=st.lists(st.booleans(), min_size=12, max_size=30),
    low=st.integers(1, 4),
    span=st.integers(0, 3),
    per_shard=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_everything_is_kept_or_counted_once(
    workspace: Path,
    tmp_path_factory: pytest.TempPathFactory,
    blanks: list[bool],
    low: int,
    span: int,
    per_shard: int,
    seed: int,
) -> None:
    root = tmp_path_factory.mktemp("conserved")
    (root / "tokenizers").symlink_to(workspace / "tokenizers")
    rows = [curated_row(number, caption=" " if blank else f"caption {number}") for number, blank in enumerate(blanks)]
    write_shards(root, "photos", rows)
    usable = blanks.count(False)
    cfg = config(
        "interleaved_caption", shards=["photos"], images=[low, low + span], seed=seed, samples_per_shard=per_shard
    )
    if usable < low:
        with pytest.raises(InputError):
            build(cfg, root, processes=1)
        return
    manifest: Manifest = build(cfg, root, processes=1)
    parents = manifest.stats["parents"]
    assert parents["seen"] == len(blanks) == parents["usable"] + sum(parents["dropped"].values())
    assert parents["usable"] == usable
    table = index_of(root)
    assert manifest.counts.seen == len(table) == manifest.counts.kept + sum(manifest.counts.dropped.values())
    used = [parent for row in table for parent in row["parents"]]
    assert len(used) == len(set(used)) <= usable
    assert usable - len(used) < low + span, "what is left is too little for one more sample"

"""`owl3 lint`: each planted fault is found by its rule, clean data passes, damage is a finding."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from owl3.build.config import BUILD_CONFIG
from owl3.build.findings import RULES
from owl3.build.lint import lint
from owl3.build.run import build
from owl3.errors import InputError
from owl3.shards import iter_members
from tests.build.world import curated_row, picture, write_shards

Files = list[tuple[str, bytes]]


@pytest.fixture(scope="session")
def clean_workspace(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """A clean sample set of eight samples of three images, built once."""
    workspace = tmp_path_factory.mktemp("clean")
    (workspace / "tokenizers").mkdir()
    (workspace / "tokenizers" / "tiny").symlink_to(tokenizer_folder)
    write_shards(workspace, "photos", [curated_row(number) for number in range(24)])
    cfg = BUILD_CONFIG.validate_python(
        {"name": "made", "builder": "selective_caption", "shards": ["photos"], "tokenizer": "tiny", "images": [3, 3]}
    )
    build(cfg, workspace)
    return workspace


@pytest.fixture
def made(clean_workspace: Path, tmp_path: Path) -> Path:
    """A copy of the clean sample set, to damage."""
    shutil.copytree(clean_workspace, tmp_path / "w", symlinks=True)
    return tmp_path / "w" / "samples" / "made"


def rules(path: Path, **options: Any) -> set[str]:
    """The rules that lint finds broken, but for those that any rewritten file breaks."""
    findings = lint(path, path.parents[1], **options).findings
    return {finding.rule for finding in findings} - {"manifest-file", "place"}


def rewrite(folder: Path, change: Callable[[Files], Files]) -> None:
    """Change the members of the first tar."""
    tar_path = folder / "00000.tar"
    files = change([(member.name, data) for member, data in iter_members(tar_path)])
    with tarfile.open(tar_path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def rewrite_json(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the first sample's KEY.json in place."""

    def changed(files: Files) -> Files:
        sample = json.loads(files[0][1])
        result = change(sample)
        return [(files[0][0], json.dumps(sample if result is None else result).encode()), *files[1:]]

    rewrite(folder, changed)


def rewrite_index(folder: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Change the rows of the first index."""
    table = pq.read_table(folder / "00000.parquet")
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / "00000.parquet")


def test_clean_samples_pass(made: Path) -> None:
    report = lint(made, made.parents[1])
    assert report.findings == []
    assert (report.checked, report.total) == (8, 8)


def test_clean_shards_pass(made: Path) -> None:
    report = lint(made.parents[1] / "shards/photos", made.parents[1])
    assert report.findings == []
    assert report.checked == 24


def test_clean_references_pass_and_a_gone_parent_is_found(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(10)
    fields = {"name": "refs", "builder": "caption", "shards": ["photos"], "tokenizer": "tiny", "store": "references"}
    build(BUILD_CONFIG.validate_python(fields), workspace)
    assert lint(workspace / "samples/refs", workspace).findings == []
    (workspace / "shards/photos/00000.tar").unlink()
    assert {finding.rule for finding in lint(workspace / "samples/refs", workspace).findings} == {"place"}


def _set(entry: dict[str, Any], key: str, value: Any) -> None:
    entry[key] = value


def _refer_to_one_more(sample: dict[str, Any]) -> None:
    sample["segments"].append({"image": 3})
    sample["turns"][1]["end"] += 1


JSON_FAULTS: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "unknown field": ("json", lambda s: _set(s, "colour", "red")),
    "not a mapping": ("json", lambda s: [s]),
    "media out of reading order": ("json", lambda s: _set(s["segments"][1], "image", 2)),
    "turns with a gap": ("json", lambda s: _set(s["turns"][1], "start", s["turns"][1]["start"] + 1)),
    "stray placeholder": ("placeholder", lambda s: _set(s["segments"][0], "text", "look: <|image|>")),
    "stray special token": ("placeholder", lambda s: _set(s["segments"][-1], "text", "bye<|im_end|>")),
    "control character": ("text", lambda s: _set(s["segments"][-1], "text", "a\x00b")),
    "empty answer": ("text", lambda s: _set(s["segments"][-1], "text", " ")),
    "two questions": ("roles", lambda s: _set(s["turns"][1], "role", "user")),
    "another seed": ("sample-id", lambda s: _set(s, "seed", 7)),
    "parents in another order": ("sample-id", lambda s: s["parents"].reverse()),
    "one image too many in the text": ("media-count", _refer_to_one_more),
    "longer text": ("cost", lambda s: _set(s["segments"][-1], "text", "a much longer answer than was counted")),
}


@pytest.mark.parametrize("name", JSON_FAULTS)
def test_faults_of_the_json_are_found(made: Path, name: str) -> None:
    rule, change = JSON_FAULTS[name]
    rewrite_json(made, change)
    assert rule in rules(made)


def _without(files: Files, ending: str) -> Files:
    first = next(name for name, _ in files if name.endswith(ending))
    return [entry for entry in files if entry[0] != first]


def _swap_bytes(files: Files, data: bytes) -> Files:
    return [*files[:1], (files[1][0], data), *files[2:]]


FILE_FAULTS: dict[str, tuple[str, Callable[[Files], Files]]] = {
    "a medium is missing": ("media-count", lambda files: _without(files, ".1.png")),
    "media stand in another order": ("media-order", lambda files: [files[0], files[2], files[1], *files[3:]]),
    "KEY.json is missing": ("json", lambda files: files[1:]),
    "KEY.json is cut": ("json", lambda files: [(files[0][0], files[0][1][:40]), *files[1:]]),
    "other bytes": ("sha256", lambda files: _swap_bytes(files, picture(999))),
    "another size": ("size", lambda files: _swap_bytes(files, picture(999, (20, 20)))),
    "bytes that are no picture": ("decode", lambda files: _swap_bytes(files, b"<html>not found</html>")),
    "a picture that ends early": ("decode", lambda files: _swap_bytes(files, files[1][1][:-200])),
    "another format than its name": ("extension", lambda files: _swap_bytes(files, picture(1, picture_format="JPEG"))),
    "another key": ("sample-id", lambda files: [(f"b{name}", data) for name, data in files[:4]] + files[4:]),
    "a folder in the key": ("key", lambda files: [(f"a/{name}", data) for name, data in files[:4]] + files[4:]),
    "a sample twice": ("duplicate", lambda files: files + files[:4]),
    "a sample lost": ("lost", lambda files: files[4:]),
    "a sample without a row": ("index-row", lambda files: files + [(f"x{name}", data) for name, data in files[:4]]),
    "samples in another order": ("position", lambda files: files[4:8] + files[:4] + files[8:]),
}


@pytest.mark.parametrize("name", FILE_FAULTS)
def test_faults_of_the_files_are_found(made: Path, name: str) -> None:
    rule, change = FILE_FAULTS[name]
    rewrite(made, change)
    assert rule in rules(made)


INDEX_FAULTS: dict[str, tuple[str, Callable[[list[dict[str, Any]]], Any]]] = {
    "declared width": ("size", lambda rows: _set(rows[0]["media"][0], "width", 47)),
    "declared hash": ("sha256", lambda rows: _set(rows[0]["media"][0], "sha256", "0" * 64)),
    "declared tokens": ("cost", lambda rows: _set(rows[0], "text_tokens", 3)),
    "declared tiles": ("cost", lambda rows: _set(rows[0], "tiles", [1, 1, 1])),
    "an unknown reason": (
        "reason",
        lambda rows: (_set(rows[0], "decision", "dropped"), _set(rows[0], "reason", "bad luck")),
    ),
    "a kept row with a reason": ("reason", lambda rows: _set(rows[0], "reason", "empty_text")),
    "neither kept nor dropped": ("decision", lambda rows: _set(rows[0], "decision", "maybe")),
    "a parent that is nowhere": ("parents", lambda rows: _set(rows[0], "parents", ["f" * 32])),
    "one row less": ("counts", lambda rows: rows.pop()),
    "over the budget": ("budget", lambda rows: _set(rows[0], "text_tokens", 40_000)),
}


@pytest.mark.parametrize("name", INDEX_FAULTS)
def test_faults_of_the_index_are_found(made: Path, name: str) -> None:
    rule, change = INDEX_FAULTS[name]
    rewrite_index(made, change)
    assert rule in rules(made)


def test_a_wrong_place_is_found_in_full_and_sampled_checks(made: Path) -> None:
    rewrite_index(made, lambda rows: [_set(row["media"][0], "offset", 7) for row in rows])
    assert "place" in {finding.rule for finding in lint(made, made.parents[1]).findings}
    assert {"sha256", "decode"} <= rules(made, sample=3)


def test_a_retracted_parent_is_found(made: Path) -> None:
    parent = pq.read_table(made / "00000.parquet")["parents"][0].as_py()[0]
    pq.write_table(pa.table({"sample_id": [parent]}), made.parents[1] / "tombstones.parquet")
    assert rules(made) == {"retracted"}


def test_frames_out_of_time_are_found(made: Path) -> None:
    def backwards(sample: dict[str, Any]) -> None:
        media = [segment for segment in sample["segments"] if "image" in segment]
        for number, segment in enumerate(media):
            segment["frame"], segment["time_s"] = segment.pop("image"), 5.0 - number
        sample["parents"] = sample["parents"][:1]

    rewrite_json(made, backwards)
    assert "frame-time" in rules(made)


def test_two_clips_may_each_begin_at_their_first_second(made: Path) -> None:
    def twice(sample: dict[str, Any]) -> None:
        media = [segment for segment in sample["segments"] if "image" in segment]
        for number, segment in enumerate(media):
            segment["frame"], segment["time_s"] = segment.pop("image"), 0.5 + number % 2
        assert len(media) > 2

    rewrite_json(made, twice)
    assert "frame-time" not in rules(made)


@pytest.mark.parametrize("keep_bytes", [0, 100, 5000])
def test_a_truncated_tar_gives_findings(made: Path, keep_bytes: int) -> None:
    tar = made / "00000.tar"
    tar.write_bytes(tar.read_bytes()[:keep_bytes])
    assert "lost" in rules(made)


def test_a_tar_of_noise_gives_findings(made: Path) -> None:
    (made / "00000.tar").write_bytes(bytes(range(256)) * 40)
    assert {"tar", "lost"} <= rules(made)


@pytest.mark.parametrize("broken", ["00000.parquet", "manifest.json"])
def test_damaged_index_or_manifest_gives_findings(made: Path, broken: str) -> None:
    (made / broken).write_bytes(b"damage")
    assert {"index", "manifest"} & rules(made)


def test_the_first_truth_of_a_manifest_is_its_files(made: Path) -> None:
    (made / "00000.tar").write_bytes((made / "00000.tar").read_bytes() + b"\0" * 512)
    assert {finding.rule for finding in lint(made, made.parents[1]).findings} == {"manifest-file"}


def test_a_sampled_check_says_how_sure_it_is(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(100)
    fields = {"name": "pairs", "builder": "caption", "shards": ["photos"], "tokenizer": "tiny"}
    build(BUILD_CONFIG.validate_python(fields), workspace)
    report = lint(workspace / "samples/pairs", workspace, sample=30)
    assert (report.checked, report.total, report.findings) == (30, 100, [])
    assert report.confidence == {"level": 0.95, "at_most": pytest.approx(0.095, abs=0.001)}
    assert "95% sure that under 9.5" in report.summary


def test_curated_pairs_are_checked_against_their_table(made: Path) -> None:
    folder = made.parents[1] / "shards/photos"
    table = pq.read_table(folder / "00000.parquet")
    rows = table.to_pylist()
    rows[0]["caption"], rows[1]["width"], rows[2]["sha256"] = "another", 3, "0" * 64
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / "00000.parquet")
    assert {"text", "sample-id", "size", "sha256"} <= rules(folder)


def test_the_id_of_a_caption_that_curation_redacted_is_not_questioned(workspace: Path) -> None:
    """It is the hash of the caption as it came, which only the source has."""
    row = curated_row(1)
    folder = write_shards(workspace, "photos", [row], redacted={row["caption"]: "write to [email]"})
    assert rules(folder) == set()


def test_nothing_to_check_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no shards"):
        lint(tmp_path, tmp_path)


def test_every_rule_has_a_planted_fault() -> None:
    planted = {rule for faults in (JSON_FAULTS, FILE_FAULTS, INDEX_FAULTS) for rule, _ in faults.values()}
    elsewhere = {"manifest", "manifest-file", "tar", "index", "frame-time", "retracted", "place"}
    assert planted | elsewhere == RULES.keys()

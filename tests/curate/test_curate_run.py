"""The whole of curation, with img2dataset, against a server that misbehaves."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image
from pydantic import ValidationError
from test_media import clip

from curate.corpus import EXPECTED, HOST, KEPT, set_up
from curate.hostile import Hostile, hostile_server, picture
from owl3.curate.config import CurateConfig
from owl3.curate.engine import EngineConfig
from owl3.curate.fetch import check_distributor
from owl3.curate.run import CurateRun, curate
from owl3.curate.sources.prepare import SourceConfig, prepare
from owl3.errors import CheckFailed, ConfigError, InputError
from owl3.manifest import Manifest, read_manifest, verify_files
from owl3.media import open_image
from owl3.progress import SILENT
from owl3.shards import iter_samples, read_member

pytestmark = pytest.mark.processes


class Done(NamedTuple):
    """A finished run and the world it ran in."""

    manifest: Manifest
    workspace: Path
    web: Hostile
    configs: tuple[SourceConfig, CurateConfig]
    seconds: float
    told: "Told"

    @property
    def folder(self) -> Path:
        return self.workspace / "shards" / "web"

    def rows(self) -> list[dict[str, Any]]:
        tables = sorted(self.folder.glob("[0-9]" * 5 + ".parquet"))
        return [row for table in tables for row in pq.read_table(table).to_pylist()]


class Told:
    """Progress as somebody sees it."""

    def __init__(self) -> None:
        self.steps: dict[str, list[int]] = {}

    def start(self, label: str, total: int | None = None) -> None:
        self._label = label
        self.steps[label] = []

    def advance(self, units: int = 1) -> None:
        self.steps[self._label].append(units)

    def finish(self, note: str = "") -> None:
        pass


def where(web: Hostile) -> dict[str, str]:
    return {"*.owl3.test": f"127.0.0.1:{web.port}"}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    workspace = tmp_path_factory.mktemp("curate")
    with hostile_server() as web:
        configs = set_up(web, workspace)
        prepare(configs[0], workspace)
        started, told = time.monotonic(), Told()
        manifest = curate(configs[1], workspace, resolve=where(web), progress=told)
        yield Done(manifest, workspace, web, configs, time.monotonic() - started, told)


def test_every_fault_is_counted_under_its_own_reason(done: Done) -> None:
    assert done.manifest.counts.dropped == EXPECTED
    assert done.manifest.counts.kept == KEPT


def test_the_run_ends_within_its_deadlines(done: Done) -> None:
    assert done.seconds < 40


def test_fetching_tells_of_rows_as_they_are_answered(done: Done) -> None:
    fetched = done.told.steps["fetch"]
    assert sum(fetched) == done.manifest.counts.seen - 2  # licence and similarity are decided before the fetch
    assert len(fetched) > len(done.told.steps["write web"])


def test_every_row_of_the_source_stands_in_the_table_once_and_in_order(done: Done) -> None:
    rows = done.rows()
    assert [row["position"] for row in rows] == list(range(done.manifest.counts.seen))
    assert [row["decision"] for row in rows].count("kept") == KEPT
    assert all((row["reason"] is None) == (row["decision"] == "kept") == (row["stage"] is None) for row in rows)


def test_shards_hold_what_their_table_says(done: Done) -> None:
    for row in done.rows():
        if row["decision"] == "dropped":
            assert row["media_offset"] is None
            continue
        tar = done.folder / f"{row['shard']}.tar"
        data = read_member(tar, row["media_offset"], row["media_bytes"])
        assert open_image(data).size == (row["width"], row["height"])
        meta = json.loads(read_member(tar, row["json_offset"], row["json_bytes"]))
        assert meta["key"] == row["sample_id"] and meta["url"] == row["url"] and meta["sha256"] == row["sha256"]


def test_samples_lie_in_source_order_with_img2datasets_members(done: Done) -> None:
    kept = [row["key"] for row in done.rows() if row["decision"] == "kept"]
    stored = [sample for tar in sorted(done.folder.glob("*.tar")) for sample in iter_samples(tar)]
    assert [key for key, _ in stored] == kept
    assert {tuple(members) for _, members in stored} == {("jpg", "txt", "json")}


def test_statistics_are_img2datasets_and_ours(done: Done) -> None:
    stats = [json.loads(path.read_text()) for path in sorted(done.folder.glob("*_stats.json"))]
    assert sum(entry["count"] for entry in stats) == done.manifest.counts.seen
    keys = ("successes", "failed_to_download", "failed_to_resize", "status_dict")
    assert all(key in entry for entry in stats for key in (*keys, "duration", "start_time", "end_time"))
    assert sum(entry["kept"] for entry in stats) == KEPT


def test_small_pictures_are_stored_as_they_came_and_big_ones_smaller(done: Done) -> None:
    by_url = {row["url"]: row for row in done.rows()}
    small, big = by_url[f"http://{HOST}/good-0.jpg"], by_url[f"http://{HOST}/big.jpg"]
    assert small["sha256"] == small["media_sha256"]
    assert (big["width"], big["original_width"]) == (1024, 1500) and big["sha256"] != big["media_sha256"]


def test_rotated_pictures_are_stored_upright_without_their_metadata(done: Done) -> None:
    row = next(row for row in done.rows() if row["url"].endswith("/rotated.jpg"))
    data = read_member(done.folder / f"{row['shard']}.tar", row["media_offset"], row["media_bytes"])
    stored = Image.open(io.BytesIO(data))
    assert stored.size == (60, 120) and not stored.getexif() and b"secret" not in data


def test_evidence_is_kept_for_every_row_that_was_asked_for(done: Done) -> None:
    tables = sorted(done.folder.glob("*_evidence.parquet"))
    evidence = [row for table in tables for row in pq.read_table(table).to_pylist()]
    asked = [row["sample_id"] for row in done.rows() if row["user_agent"]]
    assert sorted(row["sample_id"] for row in evidence) == sorted(asked)
    assert len(asked) == done.manifest.counts.seen - 2  # licence and similarity are decided before the fetch
    assert all("owl3.test/contact" in row["user_agent"] and row["time"] for row in evidence)


def test_duplicates_name_the_row_that_is_kept_instead(done: Done) -> None:
    by_id = {row["sample_id"]: row for row in done.rows()}
    for row in by_id.values():
        if row["reason"] in ("duplicate_exact", "duplicate_near"):
            other = by_id[row["duplicate_of"]]
            assert other["decision"] == "kept" and other["sample_id"] < row["sample_id"]


def test_pictures_of_an_evaluation_set_that_are_kept_are_listed_for_it(done: Done) -> None:
    flagged = [row for row in done.rows() if row["benchmark"] == "known"]
    assert [(row["url"], row["decision"]) for row in flagged] == [(f"http://{HOST}/good-8.jpg", "kept")]
    assert (done.folder / "overlap-known.txt").read_text() == "y.jpg\n"
    assert not (done.folder / "overlap-bench.txt").exists()


def test_rows_that_need_no_fetch_are_not_fetched(done: Done) -> None:
    assert done.web.asked[f"{HOST}/licensed.jpg"] == done.web.asked[f"{HOST}/unlike.jpg"] == 0


def test_nothing_is_left_lying_about_and_a_second_run_does_nothing(done: Done) -> None:
    assert not (done.folder / "_work").exists()
    assert verify_files(done.folder, done.manifest) == []
    asked = done.web.asked.total()
    assert curate(done.configs[1], done.workspace, resolve=where(done.web)) == done.manifest
    assert done.web.asked.total() == asked


def test_webdataset_and_datasets_load_the_shards(done: Done) -> None:
    tars = [str(path) for path in sorted(done.folder.glob("*.tar"))]
    pairs = list(webdataset.WebDataset(tars, shardshuffle=False).decode("pil").to_tuple("jpg", "txt", "json"))
    loaded = datasets.load_dataset("webdataset", data_files=tars, split="train", streaming=True)
    assert len(pairs) == len(list(loaded)) == KEPT
    assert all(meta["caption"] == text for _, text, meta in pairs)


_KILLED = """
import sys
from pathlib import Path
from owl3.curate.config import CurateConfig
from owl3.curate.run import curate
workspace, port = Path(sys.argv[1]), sys.argv[2]
config = CurateConfig.model_validate_json((workspace / "curate.json").read_text())
curate(config, workspace, resolve={"*.owl3.test": "127.0.0.1:" + port})
"""


def journal_lines(workspace: Path) -> int:
    spools = (workspace / "shards" / "web" / "_work" / "spools").glob("*/journal.jsonl")
    return sum(path.read_bytes().count(b"\n") for path in spools)


def with_engine(config: CurateConfig, **changes: Any) -> CurateConfig:
    return config.model_copy(update={"engine": config.engine.model_copy(update=changes)})


def assert_same_bytes(done: Done, workspace: Path) -> None:
    for path in done.folder.glob("[0-9]" * 5 + ".*"):
        assert (workspace / "shards" / "web" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("distributor", ["multiprocessing", "none"])
def test_a_killed_run_ends_with_the_same_bytes_at_any_parallelism(done: Done, tmp_path: Path, distributor: str) -> None:
    with hostile_server() as web:
        source, config = set_up(web, tmp_path)
        prepare(source, tmp_path)
        config = with_engine(config, distributor=distributor)
        slow = with_engine(config, thread_count=3)
        (tmp_path / "curate.json").write_text(slow.model_dump_json())
        process = subprocess.Popen([sys.executable, "-c", _KILLED, str(tmp_path), str(web.port)])
        while journal_lines(tmp_path) < 35 and process.poll() is None:  # the first shard is done, the second is not
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        manifest = curate(config, tmp_path, resolve=where(web))
        fetched_twice = sum(web.asked[f"{HOST}/good-{number}.jpg"] > 1 for number in range(40))
    if distributor == "multiprocessing":
        assert manifest.digest == done.manifest.digest
    assert fetched_twice <= 3  # the rows in flight
    assert_same_bytes(done, tmp_path)


def test_without_img2dataset_the_bytes_are_the_same(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWL3_TOOLS_DIR", str(tmp_path / "nothing installed"))
    with hostile_server() as web:
        source, config = set_up(web, tmp_path)
        prepare(source, tmp_path)
        manifest = curate(with_engine(config, distributor="none"), tmp_path, resolve=where(web))
    assert manifest.counts == done.manifest.counts
    assert "img2dataset" in done.manifest.tools and "img2dataset" not in manifest.tools
    assert_same_bytes(done, tmp_path)


def test_what_img2dataset_began_can_be_ended_without_it(done: Done, tmp_path: Path) -> None:
    """Rows that were left to it are fetched again; all others are not."""
    with hostile_server() as web:
        source, config = set_up(web, tmp_path)
        prepare(source, tmp_path)
        run = CurateRun(
            config,
            tmp_path,
            source=read_manifest(tmp_path / "sources" / "web"),
            recipe=config.recipe(tmp_path),
            resolve=where(web),
            progress=SILENT,
        )
        run.begin(tmp_path / "shards" / "web", None)
        run.fetch(range(3))
        for kind in ("engine", "ratings"):
            shutil.rmtree(tmp_path / "shards" / "web" / "_work" / kind)
        curate(with_engine(config, distributor="none"), tmp_path, resolve=where(web))
        again = [path for path, times in web.asked.items() if times > 1 and ("good" in path or "big" in path)]
    assert_same_bytes(done, tmp_path)
    assert again == [f"{HOST}/big.jpg"]


def test_too_many_drops_are_a_failed_check(workspace: Path) -> None:
    with hostile_server() as web:
        (workspace / "in.csv").write_text(f"url,caption\nhttp://{HOST}/a.mp4,gone\nhttp://{HOST}/b.mp4,gone\n")
        prepare(SourceConfig(name="s", files=("in.csv",), media="video"), workspace)
        config = CurateConfig.model_validate(
            {"name": "s", "source": "s", "fetch": {"allow_private_hosts": ["*.owl3.test"]}, "max_drop_fraction": 0.4}
        )
        with pytest.raises(CheckFailed, match=r"2 of 2 rows dropped.*not_found"):
            curate(config, workspace, resolve=where(web))


def test_fetching_needs_a_contact(workspace: Path) -> None:
    (workspace / "in.csv").write_text("url,caption\nhttp://a.example/a.jpg,a\n")
    prepare(SourceConfig(name="s", files=("in.csv",)), workspace)
    with pytest.raises(ConfigError, match=r"fetch\.contact"):
        curate(CurateConfig(name="s", source="s"), workspace)


def test_a_distributor_that_is_not_there_is_told_before_anything_is_fetched() -> None:
    with pytest.raises(InputError, match=r"engine\.distributor pyspark: not there; run: .*pip install pyspark"):
        check_distributor(EngineConfig(distributor="pyspark"))


@pytest.mark.parametrize("distributor", ["multiprocessing", "ray", "pyspark", "none"])
def test_a_distributor_is_passed_on_by_its_name_and_changes_no_digest(distributor: str) -> None:
    config = CurateConfig.model_validate({"name": "s", "source": "s", "engine": {"distributor": distributor}})
    assert config.engine.flags()["distributor"] == distributor
    assert config.engine.recipe() == EngineConfig().recipe()


@pytest.mark.parametrize(
    ("engine", "why"),
    [
        ({"encode_format": "png", "skip_reencode": False}, "encode_quality 95 is for jpg and webp"),
        ({"encode_format": "webp"}, "set engine.skip_reencode to false"),
        ({"distributor": "none", "extract_exif": True}, "extract_exif is img2dataset's"),
        ({"downscale_interpolation": "best"}, "downscale_interpolation"),
    ],
)
def test_formats_that_would_fail_or_keep_metadata_are_refused(engine: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        EngineConfig.model_validate(engine)


def test_what_is_blurred_is_a_good_jpeg_in_every_format() -> None:
    png = {"encode_format": "png", "encode_quality": 3, "skip_reencode": False}
    assert EngineConfig.model_validate(png).jpeg_quality == 95
    assert EngineConfig(encode_quality=80).jpeg_quality == 80


def test_clips_go_the_same_way(workspace: Path) -> None:
    data = clip(workspace / "clip.mp4").read_bytes()
    with hostile_server() as web:
        web.page("/a.mp4", data)
        web.page("/same.mp4", data)
        web.page("/picture.mp4", picture(1))
        web.page("/cut.mp4", data[: len(data) // 2])
        web.page("/short.mp4", clip(workspace / "short.mp4", frames=3).read_bytes())
        names = ("a", "same", "picture", "cut", "short", "gone")
        lines = [f"http://clips.owl3.test/{name}.mp4,clip {name}" for name in names]
        (workspace / "in.csv").write_text("\n".join(["url,caption", *lines]) + "\n")
        prepare(SourceConfig(name="s", files=("in.csv",), media="video"), workspace)
        config = CurateConfig.model_validate(
            {
                "name": "s",
                "source": "s",
                "fetch": {"allow_private_hosts": ["*.owl3.test"]},
                "video": {"min_duration_s": 1},
            }
        )
        manifest = curate(config, workspace, resolve=where(web))
    dropped = manifest.counts.dropped
    assert manifest.counts.kept == 1
    assert dropped.pop("not_a_video") + dropped.pop("undecodable", 0) == 2
    assert dropped == {"clip_too_short": 1, "duplicate_exact": 1, "not_found": 1}
    (row,) = [r for r in pq.read_table(workspace / "shards/s/00000.parquet").to_pylist() if r["decision"] == "kept"]
    assert row["extension"] == "mp4" and row["frames"] == 20 and row["duration_s"] == pytest.approx(2)
    ((_, members),) = iter_samples(workspace / "shards/s/00000.tar")
    assert list(members) == ["mp4", "txt", "json"] and members["mp4"] == data

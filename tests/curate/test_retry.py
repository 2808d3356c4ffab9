"""A second chance for transient failures, and what else a run may be asked to do."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_media import clip

from curate.hostile import Hostile, flaky, hostile_server, picture
from owl3.cards.retract import assess, bury
from owl3.cards.subjects import understand
from owl3.curate.config import CurateConfig
from owl3.curate.run import curate
from owl3.curate.sources.prepare import SourceConfig, prepare
from owl3.errors import InputError, StaleError
from owl3.ledger import TOMBSTONES
from owl3.manifest import Manifest, verify_files
from owl3.media import open_image
from owl3.shards import read_member
from owl3.takedown import take_down

HOST = "photos.owl3.test"
FETCH = {"allow_private_hosts": ["*.owl3.test"], "timeout": 0.5, "deadline_s": 2, "retries": 0}


def source(workspace: Path, rows: list[dict[str, Any]], media: str) -> None:
    (workspace / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"sha256": "sha256", "boxes": "boxes", "start_s": "start", "end_s": "end"}
    names = {ours: theirs for ours, theirs in columns.items() if theirs in rows[0]}
    prepare(
        SourceConfig.model_validate({"name": "s", "files": ["in.jsonl"], "media": media, "columns": names}), workspace
    )


def run(web: Hostile, workspace: Path, retry: bool = False, **settings: Any) -> Manifest:
    config = CurateConfig.model_validate({"name": "s", "source": "s", "fetch": FETCH} | settings)
    return curate(config, workspace, resolve={"*.owl3.test": f"127.0.0.1:{web.port}"}, retry=retry)


def table(workspace: Path) -> dict[str, dict[str, Any]]:
    rows = pq.read_table(workspace / "shards" / "s" / "00000.parquet").to_pylist()
    return {row["url"].rpartition("/")[2]: row for row in rows}


def clips(workspace: Path) -> list[dict[str, Any]]:
    return [{"url": f"http://{HOST}/{name}.mp4", "caption": f"clip {name}"} for name in "abcd"]


def serve_clips(web: Hostile, workspace: Path, failures: int) -> None:
    for number, name in enumerate("abc"):
        data = clip(workspace / f"{name}.mp4", frames=20 + number).read_bytes()
        web.page(f"/{name}.mp4", data)
        if name == "b":
            web.special["/b.mp4"] = flaky(failures, 503, data)


def test_only_transient_failures_are_fetched_again(workspace: Path, tmp_path: Path) -> None:
    with hostile_server() as web:
        serve_clips(web, tmp_path, failures=1)
        source(workspace, clips(workspace), "video")
        first = run(web, workspace)
        assert first.counts.dropped == {"not_found": 1, "server_error": 1}
        assert run(web, workspace) == first  # without --retry what is done stays
        before = table(workspace)
        second = run(web, workspace, retry=True)
        assert second.counts.dropped == {"not_found": 1} and second.counts.kept == 3
        asked = {name: web.asked[f"{HOST}/{name}.mp4"] for name in "abcd"}
    assert asked == {"a": 1, "b": 2, "c": 1, "d": 1}
    assert verify_files(workspace / "shards" / "s", second) == []
    after = table(workspace)
    assert all(after[f"{name}.mp4"]["sha256"] == before[f"{name}.mp4"]["sha256"] for name in "ac")
    assert not list((workspace / "shards").glob(".s.*/*"))


def test_a_retried_corpus_is_the_one_that_had_no_failures(workspace: Path, tmp_path: Path) -> None:
    lucky = tmp_path / "lucky"
    lucky.mkdir()
    with hostile_server() as web:
        serve_clips(web, tmp_path, failures=1)
        source(workspace, clips(workspace), "video")
        run(web, workspace)
        retried = run(web, workspace, retry=True)
        serve_clips(web, tmp_path, failures=0)
        source(lucky, clips(lucky), "video")
        assert run(web, lucky).digest == retried.digest


def test_a_change_of_versions_killed_half_way_is_repaired(workspace: Path, tmp_path: Path) -> None:
    with hostile_server() as web:
        serve_clips(web, tmp_path, failures=1)
        source(workspace, clips(workspace), "video")
        run(web, workspace)
        second = run(web, workspace, retry=True)
        (workspace / "shards" / "s").rename(workspace / "shards" / ".s.next")  # killed between the two renames
        assert run(web, workspace) == second


def test_clips_are_cut_where_the_table_says(workspace: Path, tmp_path: Path) -> None:
    rows = [
        {"url": f"http://{HOST}/a.mp4", "caption": "the middle", "start": 0.5, "end": 1.5},
        {"url": f"http://{HOST}/a.mp4", "caption": "the end", "start": 1.5, "end": None},
        {"url": f"http://{HOST}/a.mp4", "caption": "beyond the end", "start": 9.0, "end": 10.0},
    ]
    with hostile_server() as web:
        web.page("/a.mp4", clip(tmp_path / "a.mp4").read_bytes())
        source(workspace, rows, "video")
        manifest = run(web, workspace)
        assert web.asked[f"{HOST}/a.mp4"] == 1
    assert manifest.counts.dropped == {"clip_too_short": 1}
    stored = pq.read_table(workspace / "shards" / "s" / "00000.parquet").to_pylist()
    assert [row["duration_s"] for row in stored[:2]] == [1.0, 0.5]
    assert len({row["sha256"] for row in stored[:2]}) == 2


def pictures(web: Hostile) -> list[dict[str, Any]]:
    """Six rows, one for each thing a run may be asked to do."""
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(("plain", "recorded", "changed", "face", "listed", "retracted", "late")):
        data = picture(number, (200, 150))
        web.page(f"/{name}", data)
        recorded = {"recorded": sha256(data).hexdigest(), "changed": "0" * 64}.get(name)
        rows.append({"url": f"http://{HOST}/{name}", "caption": f"the {name} one", "sha256": recorded, "boxes": None})
    rows[0]["caption"] = "write to jane@mail.example"
    rows[3]["boxes"] = [[0.25, 0.25, 0.5, 0.5]]
    web.special["/late"] = flaky(1, 503, picture(6, (200, 150)))
    return rows


def test_a_corpus_is_curated_again_after_a_takedown(workspace: Path, tmp_path: Path) -> None:
    """The cleared row is not asked for, and the same clip under another URL is known by its hash."""
    with hostile_server() as web:
        serve_clips(web, tmp_path, failures=0)
        source(workspace, clips(workspace), "video")
        run(web, workspace)
        impact = assess(workspace, [understand(f"http://{HOST}/a.mp4")])
        bury(workspace, impact, "asked")
        assert take_down(workspace, impact.ids).others == ("in.jsonl",)
        web.page("/d.mp4", (tmp_path / "a.mp4").read_bytes())
        asked = web.asked[f"{HOST}/a.mp4"]
        again = run(web, workspace, name="t")
        assert again.counts.dropped == {"tombstoned": 2}
        assert web.asked[f"{HOST}/a.mp4"] == asked
    rows = pq.read_table(workspace / "shards" / "t" / "00000.parquet").to_pylist()
    assert [(row["url"] is None, row["decision"], row["reason"]) for row in rows] == [
        (True, "dropped", "tombstoned"),
        (False, "kept", None),
        (False, "kept", None),
        (False, "dropped", "tombstoned"),
    ]


@pytest.mark.processes
@pytest.mark.parametrize("distributor", ["multiprocessing", "none"])
def test_hashes_faces_lists_tombstones_and_a_retry(workspace: Path, distributor: str) -> None:
    (workspace / "list.txt").write_text(f"# asked for by mail\nHTTP://{HOST}/listed\n")
    with hostile_server() as web:
        rows = pictures(web)
        source(workspace, rows, "image")
        ids = pq.read_table(workspace / "sources" / "s" / "urls-00000.parquet").column("sample_id").to_pylist()
        retracted = {"sample_id": ids[5], "matched_by": "url", "matched_value": "x", "reason": "asked", "time": "x"}
        pq.write_table(pa.Table.from_pylist([retracted], schema=TOMBSTONES), workspace / "tombstones.parquet")
        lists = [{"kind": "url", "file": "list.txt"}]
        engine = {"distributor": distributor, "image_size": 180}
        first = run(web, workspace, blocklists=lists, engine=engine)
        assert first.counts.dropped == {"blocklisted": 1, "hash_mismatch": 1, "server_error": 1, "tombstoned": 1}
        before = table(workspace)
        second = run(web, workspace, blocklists=lists, engine=engine, retry=True)
        assert second.counts.dropped == {"blocklisted": 1, "hash_mismatch": 1, "tombstoned": 1}
        assert web.asked[f"{HOST}/listed"] == web.asked[f"{HOST}/retracted"] == 0
        assert web.asked[f"{HOST}/plain"] == 1

        (workspace / "list.txt").write_text(f"http://{HOST}/listed\nhttp://{HOST}/plain\n")
        with pytest.raises(StaleError, match="blocklist_files"):
            run(web, workspace, blocklists=lists, engine=engine)
    after = table(workspace)
    assert after["plain"]["caption"] == "write to [email]" and after["plain"]["sample_id"] == ids[0]
    assert after["plain"]["sha256"] == before["plain"]["sha256"] != after["plain"]["media_sha256"]
    assert (after["plain"]["width"], after["plain"]["original_width"]) == (180, 200)
    assert after["late"]["decision"] == "kept" and after["recorded"]["decision"] == "kept"
    face = after["face"]
    stored = read_member(workspace / "shards" / "s" / "00000.tar", face["media_offset"], face["media_bytes"])
    blurred, sharp = open_image(stored), open_image(picture(3, (200, 150))).resize((180, 135))
    inside, outside = (blurred.getpixel(at) for at in ((68, 50), (162, 126)))
    assert face["sha256"] != face["media_sha256"] and outside != inside
    assert _difference(blurred, sharp, (54, 41, 81, 63)) > 2 * _difference(blurred, sharp, (135, 90, 180, 135))


def _difference(left: Any, right: Any, box: tuple[int, int, int, int]) -> float:
    pairs = zip(left.crop(box).tobytes(), right.crop(box).tobytes(), strict=True)
    return sum(abs(one - other) for one, other in pairs) / (3 * (box[2] - box[0]) * (box[3] - box[1]))


def test_a_missing_list_is_an_error_that_names_it(workspace: Path) -> None:
    with hostile_server() as web:
        source(workspace, clips(workspace), "video")
        with pytest.raises(InputError, match=r"no file .*gone\.txt"):
            run(web, workspace, blocklists=[{"kind": "sha256", "file": "gone.txt"}])

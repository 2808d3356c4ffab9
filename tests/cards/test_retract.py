"""Taking something out: nothing is written unasked, the bytes go, and only what must is trained again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from owl3 import retraction
from owl3.cards import purge, retract, runs
from owl3.cards.audit import audit
from owl3.cards.config import CardConfig
from owl3.cards.render import card
from owl3.cards.subjects import understand
from owl3.cards.trace import trace
from owl3.errors import InputError
from owl3.manifest import read_manifest, verify_files
from owl3.planfile import Plan, Proof
from owl3.samples import url_sample_id
from owl3.shards import read_member

from .conftest import caption, picture, url
from .forge import edit_rows, edit_tar, reseal


def _retract(workspace: Path, number: int = 3) -> retract.Impact:
    impact = retract.assess(workspace, [understand(url(number))])
    retract.bury(workspace, impact, "asked for")
    return impact


def test_assessing_writes_nothing(workspace: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in workspace.rglob("*") if path.is_file()}
    impact = retract.assess(workspace, [understand("birds.example.org")])
    after = {path: path.stat().st_mtime_ns for path in workspace.rglob("*") if path.is_file()}
    assert before == after
    assert impact.urls_kept == 4
    assert impact.built == 3


def test_a_sample_is_hit_when_one_of_its_pictures_is(workspace: Path) -> None:
    impact = retract.assess(workspace, [understand(url(3))])
    built = trace(workspace, understand(url(3))).built
    assert {row["sample_id"] for row in built} < set(impact.ids)
    assert url_sample_id(url(3), caption(3)) in impact.ids


def test_tombstones_say_why_and_are_written_once(workspace: Path) -> None:
    impact = retract.assess(workspace, [understand(url(3))])
    with pytest.raises(InputError, match="--reason"):
        retract.bury(workspace, impact, "  ")
    assert retract.bury(workspace, impact, "asked for") == 2
    assert retract.bury(workspace, impact, "asked again") == 0
    assert set(retract.read_tombstones(workspace)["reason"].to_pylist()) == {"asked for"}


def test_the_same_picture_under_other_urls_is_told(workspace: Path) -> None:
    """A duplicate was asked about: its bytes are kept under another URL."""
    digest = hashlib.sha256(picture(22)).hexdigest()

    def tell(rows: list[dict[str, Any]]) -> None:
        next(row for row in rows if row["url"] == url(23))["media_sha256"] = digest

    edit_rows(workspace / "shards" / "tiny" / "00002.parquet", tell)
    reseal(workspace / "shards" / "tiny")
    impact = retract.assess(workspace, [understand(url(23))])
    assert impact.urls_kept == 0
    assert impact.warnings == (
        f"the same picture is kept under 1 more URLs ({url(22)}); --sha256 takes it out wherever it is",
    )
    assert retract.assess(workspace, [understand(digest)]).urls_kept == 1
    assert retract.assess(workspace, [understand(url(22)), understand(url(23))]).warnings == ()


def test_what_matches_nothing_is_named(workspace: Path) -> None:
    impact = retract.assess(workspace, [understand("http://elsewhere.example.org/"), understand(url(3))])
    assert [subject.text for subject in impact.missing] == ["http://elsewhere.example.org/"]


def test_a_removal_list_names_its_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"# asked on Monday\n{url(3)}\nbirds.example.org # the whole site\n\nCC-BY-4.0\n")
    with pytest.raises(InputError, match=r"list\.txt:5"):
        retract.read_list(path)
    path.write_text(f"# asked on Monday\n{url(3)}\nbirds.example.org # the whole site\n")
    assert [subject.what for subject in retract.read_list(path)] == ["url", "domain"]


def test_a_removal_list_of_another_encoding_or_with_a_mark_at_its_head(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbf" + url(3).encode() + b"\r\nhttp://[::1\r\n")
    with pytest.raises(InputError, match=r"list\.txt:2: .*not a URL"):
        retract.read_list(path)
    path.write_bytes(b"\xef\xbb\xbf" + url(3).encode() + b"\r\n")
    assert [subject.text for subject in retract.read_list(path)] == [url(3)]
    path.write_bytes("http://bücher.example/".encode("latin-1"))
    with pytest.raises(InputError, match=r"list\.txt: not UTF-8"):
        retract.read_list(path)


@pytest.mark.parametrize("place", ["shards/tiny", "shards/tiny/00000.tar", "samples/pairs/00000.parquet"])
def test_what_a_link_leads_to_is_not_left_behind(place: str, workspace: Path, tmp_path: Path) -> None:
    impact = _retract(workspace)
    (workspace / place).rename(tmp_path / "elsewhere")
    (workspace / place).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"leads to .*elsewhere"):
        purge.purge(workspace, impact.ids)
    assert (tmp_path / "elsewhere").exists()


def test_a_tar_that_holds_what_its_table_does_not_know_is_named(workspace: Path) -> None:
    impact = _retract(workspace)
    edit_tar(
        workspace / "shards" / "tiny" / "00000.tar", lambda samples: samples.append(("f" * 32, dict(samples[0][1])))
    )
    with pytest.raises(InputError, match="which its table does not keep"):
        purge.purge(workspace, impact.ids)


def test_files_are_copied_where_there_are_no_hard_links(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", refuse)
    purge.purge(workspace, _retract(workspace).ids)
    assert not verify_files(workspace / "shards" / "tiny", read_manifest(workspace / "shards" / "tiny"))


def test_a_parent_that_several_samples_share_takes_them_all_and_no_other(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same picture in two built samples: both go; what else they were built from stays."""
    before = {row["sample_id"]: row for row in _rows(workspace)}
    shared, other = url_sample_id(url(3), caption(3)), next(row for row in before.values() if row["position"] == 5)
    other["parents"] = [shared, *other["parents"][1:]]
    edit_rows(
        workspace / "samples" / "pairs" / "00000.parquet", lambda rows: [before[row["sample_id"]] for row in rows]
    )
    monkeypatch.setattr("owl3.cards.lookup.check_tables", lambda *_: None)  # sealed anew, it would be no plan's samples
    impact = _retract(workspace)
    assert impact.built == 2
    purge.purge(workspace, impact.ids)
    after = {row["sample_id"]: row["decision"] for row in _rows(workspace)}
    gone = {key for key, decision in after.items() if decision != before[key]["decision"]}
    assert gone == {key for key, row in before.items() if shared in row["parents"]}
    kept = pq.read_table(workspace / "shards" / "tiny" / "00000.parquet").to_pylist()
    assert [row["sample_id"] for row in kept if row["reason"] == "tombstoned"] == [shared]


def _rows(workspace: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(workspace / "samples" / "pairs" / "00000.parquet").to_pylist()
    return rows


def test_a_purge_takes_the_bytes_out_and_keeps_the_chain_whole(workspace: Path) -> None:
    impact = _retract(workspace)
    secret = picture(3)
    assert purge.find_pictures(workspace, lambda data: data == secret)
    purged = purge.purge(workspace, impact.ids)
    assert [(entry.kind, entry.name, entry.removed) for entry in purged] == [
        ("shards", "tiny", 1),
        ("tokenizer", "tiny", 0),
        ("samples", "pairs", 1),
    ]
    assert not purge.find_pictures(workspace, lambda data: data == secret)
    for folder in ("shards/tiny", "samples/pairs"):
        manifest = read_manifest(workspace / folder)
        assert not verify_files(workspace / folder, manifest)
        assert manifest.counts.dropped["tombstoned"] == 1
    samples = read_manifest(workspace / "samples" / "pairs")
    tokenizer = read_manifest(workspace / "tokenizers" / "tiny")
    shards = read_manifest(workspace / "shards" / "tiny")
    assert tokenizer.parents == (shards.as_parent(),)
    assert samples.parents == (tokenizer.as_parent(), shards.as_parent())
    assert samples.stats["retraction"]["replaces"] == [purged[2].old_digest]
    assert purge.purge(workspace, impact.ids) == []


def test_every_place_in_a_purged_index_is_true(workspace: Path) -> None:
    purge.purge(workspace, _retract(workspace).ids)
    for row in pq.read_table(workspace / "samples" / "pairs" / "00000.parquet").to_pylist():
        if row["decision"] == "kept":
            tar = workspace / "samples" / "pairs" / "00000.tar"
            assert json.loads(read_member(tar, row["json_offset"], row["json_bytes"]))["id"] == row["sample_id"]


def test_a_card_of_a_purged_corpus_passes_its_audit(workspace: Path, datacards: Path) -> None:
    purge.purge(workspace, _retract(workspace).ids)
    config = CardConfig(name="demo", version="1.1.0", shards=("tiny",), samples=("pairs",))
    card(config, workspace, datacards)
    result = audit(datacards / "demo" / "1.1.0", workspace)
    assert result.passed, [check.line() for check in result.checks if not check.passed]
    old = audit(datacards / "demo" / "1.0.0", workspace)
    assert not old.passed  # the old card tells of a corpus that is no more


def test_what_a_killed_purge_left_behind_is_no_artifact(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, exchange = _retract(workspace), purge._exchange

    def killed(folder: Path, fresh: Path) -> None:
        if folder.name == "pairs":
            raise KeyboardInterrupt
        exchange(folder, fresh)

    monkeypatch.setattr(purge, "_exchange", killed)
    with pytest.raises(KeyboardInterrupt):
        purge.purge(workspace, first.ids)
    monkeypatch.undo()
    assert (workspace / "samples" / ".pairs.new" / "manifest.json").is_file()
    second = retract.assess(workspace, [understand(url(16))])
    done = purge.purge(workspace, {*first.ids, *second.ids})
    assert [entry.name for entry in done].count("pairs") == 1
    assert [path.name for path in (workspace / "retired" / "samples").iterdir()] == ["pairs"]
    assert not list((workspace / "samples").glob(".*.new"))


def test_artifacts_that_are_each_others_parents_end_a_purge_with_a_word(workspace: Path) -> None:
    impact = _retract(workspace)
    shards = workspace / "shards" / "tiny"
    other = shards.with_name("other")
    shutil.copytree(shards, other)
    parent = read_manifest(shards).as_parent().model_dump()
    reseal(other, name="other", parents=[parent])
    reseal(shards, parents=[parent | {"name": "other"}])
    with pytest.raises(InputError, match="name each other as parents"):
        purge.purge(workspace, impact.ids)


def test_an_interrupted_purge_is_finished_by_the_next(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    impact = _retract(workspace)
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self.name == ".tiny.new":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        purge.purge(workspace, impact.ids)
    monkeypatch.undo()
    purge.purge(workspace, impact.ids)
    assert not purge.find_bytes(workspace, impact.ids)
    shards, samples = read_manifest(workspace / "shards" / "tiny"), read_manifest(workspace / "samples" / "pairs")
    assert samples.parents[1].digest == shards.digest


def test_the_rerun_goes_on_from_the_last_clean_checkpoint(workspace: Path) -> None:
    impact = _retract(workspace)
    first, second = retraction.plan_rerun(workspace, impact.plans)
    assert (first.stage, first.first_tainted, first.resume_from, first.steps_to_train) == ("pretrain", 2, 2, 6)
    assert first.hours == pytest.approx(6 * 36 / 3600)
    assert (second.stage, second.resume_from, second.steps_to_train) == ("sft", 0, 2)


def test_carrying_a_retraction_out_ends_where_trace_finds_nothing(workspace: Path, datacards: Path) -> None:
    old = Plan.open(workspace / "plans" / "toy" / "pretrain")
    impact = _retract(workspace)
    purge.purge(workspace, impact.ids)
    still = trace(workspace, understand(url(3)), datacards)
    assert still.found  # the old weights are still there, and are named
    assert {hit.checkpoint.run for hit in still.checkpoints} == {"toy/pretrain", "toy/sft"}

    pretrain, sft = retraction.prepare_rerun(workspace, "toy", "toy-2")
    new = Plan.open(workspace / "plans" / "toy-2" / "pretrain")
    assert pretrain.resume_from == 2
    assert new.prefix_digest(2) == old.prefix_digest(2)
    adopted = workspace / "runs" / "toy-2" / "pretrain" / "checkpoints" / "step-000002"
    new.check_proof(Proof.model_validate(json.loads((adopted / "trainer.json").read_bytes())["proof"]))
    assert read_manifest(adopted).parents[0].digest == new.digest
    assert sft.resume_from == 0
    before = workspace / "runs" / "toy" / "pretrain" / "checkpoints" / "step-000002"
    assert read_manifest(before).parents[0].digest == old.digest  # the old run is as it was
    assert not verify_files(before, read_manifest(before))

    assert retraction.remove_run(workspace, "toy", "replaced by toy-2") == ["toy/pretrain", "toy/sft"]
    gone = trace(workspace, understand(url(3)), datacards)
    assert not gone.found
    assert gone.tombstoned == 2
    assert runs.read_run(workspace, workspace / "runs" / "toy-2" / "pretrain") is not None


def test_a_clean_stage_is_adopted_whole(workspace: Path) -> None:
    """A picture that only the second stage saw: the first stage's weights stay."""
    steps = {hit.plan: hit.steps for hit in trace(workspace, understand(url(3))).plans}
    assert set(steps) == {"toy/pretrain", "toy/sft"}
    never_drawn = retraction.prepare_rerun(workspace, "toy", "toy-2")  # nothing retracted: everything is adopted
    assert [stage.steps_to_train for stage in never_drawn] == [0, 0]
    sft = read_manifest(workspace / "runs" / "toy-2" / "sft")
    assert [parent.name for parent in sft.parents] == ["toy-2/sft", "toy-2/pretrain"]
    assert sft.parents[1].digest == read_manifest(workspace / "runs" / "toy-2" / "pretrain").digest
    assert not verify_files(workspace / "runs" / "toy-2" / "sft", sft)


def test_a_run_is_removed_with_a_note(workspace: Path) -> None:
    with pytest.raises(InputError, match="--reason"):
        retraction.remove_run(workspace, "toy", "")
    retraction.remove_run(workspace, "toy", "replaced")
    note = json.loads((workspace / "retired" / "runs" / "toy.json").read_bytes())
    assert note["reason"] == "replaced"
    assert len(note["weights"]) == 6
    with pytest.raises(InputError, match="no such run"):
        retraction.remove_run(workspace, "toy", "again")

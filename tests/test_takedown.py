"""A takedown clears what was said as well as what was shown, and what is left can still be audited."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from cards.conftest import DROPS, caption, fill, make_card, picture, url
from cards.forge import edit_rows, reseal
from planted import holding

from owl3 import takedown
from owl3.cards import purge, retract
from owl3.cards import said as words
from owl3.cards.audit import audit
from owl3.cards.config import CardConfig
from owl3.cards.render import card
from owl3.cards.residue import find
from owl3.cards.said import Said
from owl3.cards.subjects import understand
from owl3.cards.trace import trace
from owl3.data.dataset import PlanDataset
from owl3.errors import InputError
from owl3.ledger import read_retracted, read_tombstones
from owl3.manifest import read_manifest, verify_files
from owl3.planfile import Plan
from owl3.report.tracing import write_trace_page
from owl3.samples import url_id, url_sample_id
from owl3.takedown import take_down
from owl3.tokens import TextTokenizer

NUMBER = 3
"""Of the picture that is taken out."""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    fill(tmp_path / "workspace")
    return tmp_path / "workspace"


def _bury(workspace: Path, text: str = "", number: int = NUMBER) -> tuple[str, ...]:
    impact = retract.assess(workspace, [understand(text or url(number))])
    retract.bury(workspace, impact, "asked for")
    return impact.ids


def _take_down(workspace: Path, **settings: bool) -> takedown.Takedown:
    return take_down(workspace, _bury(workspace), **settings)


def _said(workspace: Path, number: int = NUMBER) -> set[str]:
    """Files that hold the URL or the caption of a row, by a search that knows nothing of owl3's own."""
    found = holding([workspace], [url(number), caption(number)])
    return {path.relative_to(workspace).as_posix() for path, _ in found}


def test_no_file_says_it_any_more(workspace: Path) -> None:
    assert len(_said(workspace)) >= 5
    done = _take_down(workspace)
    assert _said(workspace) == set()
    assert (done.left, done.others) == ((), ())
    assert done.texts == 2  # a URL, which is canonical as it is, and a caption
    assert not purge.find_pictures(workspace, lambda data: data == picture(NUMBER))
    assert not (workspace / words.NAME).exists()


def test_metadata_stay_where_they_are_when_that_is_wanted(workspace: Path) -> None:
    source = read_manifest(workspace / "sources" / "tiny")
    done = _take_down(workspace, keep_metadata=True)
    assert not purge.find_pictures(workspace, lambda data: data == picture(NUMBER))
    assert read_manifest(workspace / "sources" / "tiny") == source
    assert "sources/tiny/urls-00000.parquet" in _said(workspace)
    assert read_tombstones(workspace)["matched_value"][0].as_py() == url(NUMBER)
    assert done.texts is None
    later = _take_down(workspace)  # who thinks better of it
    assert _said(workspace) == set()
    assert [made.kind for made in later.purged] == ["source", "shards", "tokenizer", "samples"]


def test_what_is_left_passes_an_audit(workspace: Path, tmp_path: Path) -> None:
    _take_down(workspace)
    for folder in ("sources/tiny", "shards/tiny", "tokenizers/tiny", "samples/pairs"):
        assert not verify_files(workspace / folder, read_manifest(workspace / folder))
    shards, source = (read_manifest(workspace / folder) for folder in ("shards/tiny", "sources/tiny"))
    assert shards.parents == (source.as_parent(),)
    assert (shards.counts.seen, shards.counts.dropped["tombstoned"]) == (source.counts.kept, 1)
    result = audit(make_card(workspace, tmp_path / "datacards"), workspace)
    assert result.passed, [check.line() for check in result.checks if not check.passed]


def test_ids_and_hashes_are_all_that_stays(workspace: Path) -> None:
    shards = workspace / "shards" / "tiny"
    edit_rows(
        workspace / "sources" / "tiny" / "urls-00000.parquet", lambda rows: [{**r, "src_who": "Jane"} for r in rows]
    )
    evidence = pq.read_table(shards / "00000_evidence.parquet").to_pylist()
    reseal(workspace / "sources" / "tiny")
    reseal(shards, parents=[read_manifest(workspace / "sources" / "tiny").as_parent().model_dump()])
    _take_down(workspace)
    sample_id = url_sample_id(url(NUMBER), caption(NUMBER))
    left: dict[str, dict[str, object]] = {}
    for path in (
        shards / "00000.parquet",
        shards / "00000_evidence.parquet",
        workspace / "sources/tiny/urls-00000.parquet",
    ):
        table = pq.read_table(path)
        (row,) = table.filter(pc.equal(table["sample_id"], sample_id)).to_pylist()
        left[path.name] = {name: value for name, value in row.items() if value is not None}
    assert left["urls-00000.parquet"] == {"sample_id": sample_id, "licence": "CC-BY-4.0"}
    assert left["00000_evidence.parquet"] == {"sample_id": sample_id, "time": evidence[NUMBER]["time"]}
    assert left["00000.parquet"].keys() == {
        *("sample_id", "licence", "source", "decision", "reason", "stage", "shard", "position", "media_sha256")
    }
    assert left["00000.parquet"]["reason"] == "tombstoned"


def test_a_row_that_was_never_kept_is_cleared_too(workspace: Path) -> None:
    number = next(iter(DROPS))
    before = (workspace / "shards" / "tiny" / "00000.tar").read_bytes()
    done = take_down(workspace, _bury(workspace, number=number))
    assert _said(workspace, number) == set()
    counts = read_manifest(workspace / "shards" / "tiny").counts
    assert (counts.dropped.get(DROPS[number][1], 0), counts.dropped["tombstoned"]) == (0, 1)
    assert (workspace / "shards" / "tiny" / "00000.tar").read_bytes() == before
    assert [made.removed for made in done.purged] == [0, 0, 0, 0]


def test_a_tombstone_keeps_hashes_by_which_the_same_request_is_known_again(workspace: Path) -> None:
    ids = _bury(workspace)
    take_down(workspace, ids)
    rows = read_tombstones(workspace).to_pylist()
    assert {row["sample_id"] for row in rows} == set(ids)
    assert all(str(row["matched_value"]).startswith("sha256:") for row in rows if row["url_id"])
    found = trace(workspace, understand(url(NUMBER)))
    assert found.tombstoned == len(ids)
    assert [hit.plan for hit in found.plans] == ["toy/pretrain", "toy/sft"]  # old runs answer for it by its id
    retracted = read_retracted(workspace)
    assert retracted.has("0" * 32, url(NUMBER))
    assert not retracted.has("0" * 32, url(4))
    assert not retracted.has("0" * 32, None)
    assert len(retracted.media_sha256) == 1


def test_a_page_about_what_was_cleared_says_so(workspace: Path, tmp_path: Path) -> None:
    _take_down(workspace)
    found = trace(workspace, understand(url(NUMBER)))
    write_trace_page(tmp_path / "trace.html", found, workspace)
    page = (tmp_path / "trace.html").read_text()
    assert "a URL that was cleared" in page
    assert "None" not in page
    assert caption(NUMBER) not in page


def test_a_domain_that_was_cleared_is_known_again(workspace: Path) -> None:
    ids = _bury(workspace, "birds.example.org")
    take_down(workspace, ids)
    assert trace(workspace, understand("birds.example.org")).tombstoned == len(ids)
    assert not list(holding([workspace], ["birds.example.org"]))


def test_a_request_about_one_sample_says_nothing_about_its_url(workspace: Path) -> None:
    sample_id = url_sample_id(url(NUMBER), caption(NUMBER))
    take_down(workspace, _bury(workspace, sample_id))
    retracted = read_retracted(workspace)
    assert sample_id in retracted.ids
    assert not retracted.url_ids
    assert trace(workspace, understand(url(NUMBER))).tombstoned == 2


def test_words_that_others_say_too_are_left_to_them(workspace: Path) -> None:
    path = workspace / "sources" / "tiny" / "urls-00000.parquet"
    edit_rows(path, lambda rows: [{**r, "src_of": "shared with many"} for r in rows])
    reseal(path.parent)
    done = _take_down(workspace)
    assert (done.texts, done.left) == (2, ())


def test_cards_and_pages_that_show_it_are_withdrawn(workspace: Path) -> None:
    made = make_card(workspace, workspace / "datacards")
    digest = read_manifest(made).digest
    (workspace / "report").mkdir()
    (workspace / "report" / "index.html").write_text(caption(NUMBER))
    done = _take_down(workspace)
    assert set(done.withdrawn) == {"datacards/demo/1.0.0", "report"}
    assert not made.exists()
    assert (workspace / "datacards" / "demo" / "facts.yaml").is_file()
    note = json.loads((workspace / "retired" / "cards" / "demo" / "1.0.0.json").read_bytes())
    assert note["digest"] == digest
    config = CardConfig(name="demo", version="1.1.0", shards=("tiny",), samples=("pairs",))
    card(config, workspace, workspace / "datacards")
    second = take_down(workspace, _bury(workspace, number=4))
    assert second.withdrawn == ("datacards/demo/1.1.0",)


def test_a_card_that_another_folder_holds_is_named_and_left(workspace: Path, tmp_path: Path) -> None:
    datacards = tmp_path / "datacards"
    made = make_card(workspace, datacards)
    (made / "notes.html").write_text(f"<p>{caption(NUMBER)} &amp; more</p>")
    done = take_down(workspace, _bury(workspace), datacards_dir=datacards)
    assert str(made / "notes.html") in done.others
    assert made.is_dir()


def test_the_search_index_loses_its_vectors_and_words(workspace: Path) -> None:
    folder = workspace / "indexes" / "tiny"
    ids = [url_sample_id(url(number), caption(number)) for number in (2, NUMBER, 4)]
    for kind in ("img_emb", "text_emb", "metadata"):
        (folder / kind).mkdir(parents=True)
    for kind in ("img_emb", "text_emb"):
        np.save(folder / kind / f"{kind}_0.npy", np.eye(3, dtype=np.float16))
    rows = {"image_path": ids, "caption": [caption(number) for number in (2, NUMBER, 4)]}
    pq.write_table(pa.table(rows), folder / "metadata" / "metadata_0.parquet")
    (folder / "image.index").write_bytes(b"vectors")
    for settings in ({"keep_metadata": True}, {}):
        _take_down(workspace, **settings)
        assert pq.read_table(folder / "metadata" / "metadata_0.parquet")["image_path"].to_pylist() == [ids[0], ids[2]]
        assert np.load(folder / "img_emb" / "img_emb_0.npy").tolist() == [[1, 0, 0], [0, 0, 1]]
        assert not (folder / "image.index").exists()


def test_files_that_nobody_but_people_write_are_named_and_left(workspace: Path) -> None:
    (workspace / "dumps").mkdir()
    dump = workspace / "dumps" / "all.tsv"
    dump.write_text(f"{url(NUMBER)}\t{caption(NUMBER)}\n")
    (workspace / "logs").mkdir()
    (workspace / "logs" / "fetch.log").write_text(f"GET {url(NUMBER)}: 200\n")
    (workspace / "rights").mkdir()
    (workspace / "rights" / "proposal.txt").write_text(f"# head\n{url(NUMBER)} # opt_out\n{url(4)} # opt_out\n")
    done = _take_down(workspace)
    assert (done.left, done.others) == (("logs/fetch.log",), ("dumps/all.tsv",))
    assert dump.is_file()
    assert (workspace / "rights" / "proposal.txt").read_text() == f"# head\n{url(4)} # opt_out\n"


FORMS = {
    "a.txt": lambda text: f"seen: {text}".encode(),
    "a.json": lambda text: json.dumps({"a": [{"b": f"{text} ä"}]}).encode(),
    "a.jsonl": lambda text: b'{"a": 1}\n' + json.dumps([text]).encode(),
    "a.html": lambda text: f"<p title='{text.replace('<', '&lt;')}'>&amp;</p>".encode(),
    "a.sqlite": lambda text: b"SQLite\0\0" + text.encode() + b"\0",
    ".hidden": lambda text: text.encode(),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("text", ["http://jane.example.org/me.jpg?a=1", "Jane <Doe> at the beach, über alles"])
def test_a_word_is_found_in_whatever_form(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FORMS[name](text))
    (tmp_path / "other.txt").write_text(f"{text}s and {text}/more")  # other words, that begin alike
    assert find(tmp_path, Said(texts={text}, inside={text})) == [name]


@pytest.mark.parametrize("text", ["http://jane.example.org/me.jpg?a=1", "Jane Doe at the beach"])
def test_many_words_are_looked_for_as_values_lines_and_urls(text: str, tmp_path: Path) -> None:
    columns = {"s": [{"a": [text]}], "b": [b"x"], "n": [1], "none": pa.nulls(1)}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    (tmp_path / "a.json").write_text(json.dumps({"a": text}))
    (tmp_path / "a.txt").write_text(f"x\n {text}\ny")
    assert find(tmp_path, Said(texts={text})) == ["a.json", "a.parquet", "a.txt"]


def test_a_file_that_is_not_what_it_is_called_is_looked_through_all_the_same(tmp_path: Path) -> None:
    for name in ("a.parquet", "a.tar"):
        (tmp_path / name).write_text("Jane Doe at the beach")
    assert find(tmp_path, Said(texts={"Jane Doe at the beach"})) == ["a.parquet", "a.tar"]


@pytest.mark.parametrize("kind", ["source", "shards", "samples"])
def test_a_killed_takedown_is_finished_by_the_same_request(
    kind: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remake = purge._remake

    def killed(state: purge._State, folder: Path) -> None:
        remake(state, folder)
        if read_manifest(folder).kind == kind:
            raise KeyboardInterrupt

    monkeypatch.setattr(purge, "_remake", killed)
    ids = _bury(workspace)
    with pytest.raises(KeyboardInterrupt):
        take_down(workspace, ids)
    assert (workspace / words.NAME).stat().st_mode & 0o077 == 0
    monkeypatch.undo()
    (workspace / "logs").mkdir()
    (workspace / "logs" / "a.log").write_text(caption(NUMBER))  # its row says it no more: it is remembered
    assert set(_bury(workspace)) == set(ids)
    assert take_down(workspace, _bury(workspace)).left == ("logs/a.log",)
    (workspace / "logs" / "a.log").unlink()
    assert take_down(workspace, _bury(workspace)).texts == 2
    assert _said(workspace) == set()
    assert not (workspace / words.NAME).exists()


def test_two_takedowns_after_each_other_leave_one_whole_chain(workspace: Path, tmp_path: Path) -> None:
    for number in (NUMBER, 4, 16):
        take_down(workspace, _bury(workspace, number=number))
        assert _said(workspace, number) == set()
    shards = read_manifest(workspace / "shards" / "tiny")
    assert len(shards.stats["retraction"]["replaces"]) == 3
    assert shards.counts.dropped["tombstoned"] == 3
    result = audit(make_card(workspace, tmp_path / "datacards"), workspace)
    assert result.passed, [check.line() for check in result.checks if not check.passed]
    assert _take_down(workspace).purged == ()


@pytest.mark.parametrize("forgery", ["no tombstone", "another reason"])
def test_a_row_that_was_silenced_without_a_takedown_is_found(forgery: str, workspace: Path, tmp_path: Path) -> None:
    _take_down(workspace)
    silenced = {"url": None, "canonical_url": None, "domain": None, "caption": None}
    number = next(iter(DROPS))
    if forgery == "no tombstone":
        silenced |= {"reason": "tombstoned", "stage": "takedown"}

    def silence(rows: list[dict[str, object]]) -> None:
        for row in rows:
            if row["sample_id"] == url_sample_id(url(number), caption(number)):
                row |= {name: value for name, value in silenced.items() if name in row}

    source, shards = workspace / "sources" / "tiny", workspace / "shards" / "tiny"
    edit_rows(source / "urls-00000.parquet", silence)
    edit_rows(shards / "00000.parquet", silence)
    reseal(source)
    reseal(shards, parents=[read_manifest(source).as_parent().model_dump()])
    result = audit(make_card(workspace, tmp_path / "datacards"), workspace)
    lines = [check.line() for check in result.checks if not check.passed]
    assert any("stated a URL, or a takedown" in line for line in lines), lines


def test_compressed_copies_are_looked_into(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with gzip.open(buffer, "wb") as file:
        file.write(b'{"caption": "Jane Doe at the beach"}')
    (tmp_path / "dump.jsonl.gz").write_bytes(buffer.getvalue())
    assert find(tmp_path, Said(texts={"Jane Doe at the beach"})) == ["dump.jsonl.gz"]


def test_url_ids_are_those_of_the_canonical_spelling() -> None:
    assert url_id("HTTP://Jane.example.org:80/me.jpg#top") == url_id("http://jane.example.org/me.jpg")


def test_a_training_that_goes_on_reads_nothing_of_it(workspace: Path) -> None:
    """Buried, it is passed over at once; once the shards are made anew, who opens them stops and says what to do."""
    plan = Plan.open(workspace / "plans" / "toy" / "pretrain")
    tokenizer = TextTokenizer.load(workspace / "tokenizers" / "tiny")
    running, later = (PlanDataset(plan, workspace, tokenizer, tile_px=32) for _ in range(2))
    whole = [sample.sample_id for number in range(len(running)) for sample in running[number].samples]
    ids = _bury(workspace)
    rows = [running[number] for number in range(len(running))]
    read = [sample.sample_id for row in rows for sample in row.samples]
    assert set(whole) - set(read) == set(ids) & set(whole) != set()
    assert {drop.reason for row in rows for drop in row.drops} == {"tombstoned"}
    take_down(workspace, ids)
    assert [sample.sample_id for number in range(len(running)) for sample in running[number].samples] == read
    with pytest.raises(InputError, match="a purge made them anew since this plan was made"):
        [later[number] for number in range(len(later))]

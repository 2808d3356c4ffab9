"""One corruption at a time: each is found, and the audit names what is wrong.

`plain` corruptions leave the manifests alone. `forged` ones come from someone who makes every manifest, from the source
to the card, agree with the damage again: then only what the bytes themselves say can tell.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from owl3.cards.audit import audit
from owl3.cards.pictures import DATA_URI_PREFIX, data_uri, small_picture
from owl3.manifest import read_manifest
from owl3.samples import url_sample_id

from .conftest import HOSTS, NUM_URLS, caption, picture, url
from .forge import Row, edit_json, edit_manifest, edit_rows, edit_tar, edit_text, flip_byte, reseal, reseal_all

Corrupt = Callable[[Path, Path], None]
PLAIN: dict[str, tuple[Corrupt, str]] = {}
FORGED: dict[str, tuple[Corrupt, str]] = {}
COUNTS: dict[str, dict[str, object]] = {}
KEPT = NUM_URLS - 4
DROPPED = {"duplicate_exact": 1, "not_found": 1, "robots_disallowed": 1, "timeout": 1}
FIRST_ID = url_sample_id(url(0), caption(0))


def plain(expected: str) -> Callable[[Corrupt], Corrupt]:
    """Register a corruption that leaves manifests alone; `expected` stands in one of the failed checks."""

    def register(corrupt: Corrupt) -> Corrupt:
        PLAIN[corrupt.__name__] = (corrupt, expected)
        return corrupt

    return register


def forged(expected: str, **counts: object) -> Callable[[Corrupt], Corrupt]:
    """Register a corruption after which the whole chain is sealed again, with these counts."""

    def register(corrupt: Corrupt) -> Corrupt:
        FORGED[corrupt.__name__] = (corrupt, expected)
        COUNTS[corrupt.__name__] = counts
        return corrupt

    return register


@pytest.mark.parametrize("name", PLAIN)
def test_a_corruption_is_found_and_named(name: str, workspace: Path, datacards: Path) -> None:
    corrupt, expected = PLAIN[name]
    card = datacards / "demo" / "1.0.0"
    corrupt(workspace, card)
    _assert_found(card, workspace, expected)


@pytest.mark.parametrize("name", FORGED)
def test_a_forgery_with_recomputed_digests_is_found_and_named(name: str, workspace: Path, datacards: Path) -> None:
    corrupt, expected = FORGED[name]
    card = datacards / "demo" / "1.0.0"
    corrupt(workspace, card)
    reseal_all(workspace, card, **COUNTS[name])
    read_manifest(workspace / "shards" / "tiny")  # the forgery is a good one
    _assert_found(card, workspace, expected)


def _assert_found(card: Path, workspace: Path, expected: str) -> None:
    result = audit(card, workspace)
    lines = [check.line() for check in result.checks if not check.passed]
    assert not result.passed
    assert any(expected in line for line in lines), "\n".join(lines)


def test_enough_corruptions_are_tried() -> None:
    assert len(PLAIN) + len(FORGED) >= 30


def _shard(workspace: Path, name: str = "00000.tar") -> Path:
    return workspace / "shards" / "tiny" / name


def _built(workspace: Path, name: str = "00000.tar") -> Path:
    return workspace / "samples" / "pairs" / name


# --- bytes of files -------------------------------------------------------------------------------------------------


@plain("files: shards tiny 00000.tar")
def one_byte_of_a_picture(workspace: Path, card: Path) -> None:
    flip_byte(_shard(workspace))


@plain("files: shards tiny 00002.tar")
def one_byte_of_a_tars_padding(workspace: Path, card: Path) -> None:
    flip_byte(_shard(workspace, "00002.tar"), offset=_shard(workspace, "00002.tar").stat().st_size - 1)


@plain("files: samples pairs 00000.tar")
def one_byte_of_a_built_sample(workspace: Path, card: Path) -> None:
    flip_byte(_built(workspace))


@plain("files: shards tiny 00001.parquet")
def one_byte_of_a_table(workspace: Path, card: Path) -> None:
    flip_byte(_shard(workspace, "00001.parquet"))


@plain("files: source tiny urls-00000.parquet")
def one_byte_of_the_source(workspace: Path, card: Path) -> None:
    flip_byte(workspace / "sources" / "tiny" / "urls-00000.parquet")


@plain("files: source tiny urls-00000.parquet")
def a_source_table_whose_pages_do_not_decode(workspace: Path, card: Path) -> None:
    path = workspace / "sources" / "tiny" / "urls-00000.parquet"
    data = bytearray(path.read_bytes())
    footer = int.from_bytes(data[-8:-4], "little") + 8  # left whole, so that the table opens
    data[4 : len(data) - footer] = b"\xff" * (len(data) - footer - 4)
    path.write_bytes(bytes(data))


@plain("files: tokenizer tiny")
def one_byte_of_the_tokenizer(workspace: Path, card: Path) -> None:
    folder = workspace / "tokenizers" / "tiny"
    flip_byte(folder / "tokenizer.json" if (folder / "tokenizer.json").is_file() else next(folder.glob("*.json")))


@plain("files: shards tiny 00001.tar")
def a_truncated_tar(workspace: Path, card: Path) -> None:
    data = _shard(workspace, "00001.tar").read_bytes()
    _shard(workspace, "00001.tar").write_bytes(data[: len(data) // 2])


@plain("files: shards tiny 00001.tar")
def a_missing_tar(workspace: Path, card: Path) -> None:
    _shard(workspace, "00001.tar").unlink()


@plain("files: shards tiny 00001.parquet")
def a_missing_table(workspace: Path, card: Path) -> None:
    _shard(workspace, "00001.parquet").unlink()


@plain("files: shards tiny 00003.tar: stated not listed")
def a_tar_that_no_manifest_vouches_for(workspace: Path, card: Path) -> None:
    shutil.copy(_shard(workspace), _shard(workspace, "00003.tar"))


@plain("files: shards tiny 00000.tar")
def two_shards_swapped(workspace: Path, card: Path) -> None:
    first, second = _shard(workspace), _shard(workspace, "00001.tar")
    first.rename(first.with_name("aside"))
    second.rename(first)
    first.with_name("aside").rename(second)


# --- manifests ------------------------------------------------------------------------------------------------------


@plain("chain: shards tiny")
def counts_edited_in_a_manifest(workspace: Path, card: Path) -> None:
    edit_manifest(workspace / "shards" / "tiny", counts={"seen": 31, "kept": 27, "dropped": DROPPED})


@plain("chain: samples pairs")
def another_digest_in_a_manifest(workspace: Path, card: Path) -> None:
    edit_manifest(workspace / "samples" / "pairs", digest="0" * 64)


@plain("chain: source tiny")
def a_missing_manifest(workspace: Path, card: Path) -> None:
    (workspace / "sources" / "tiny" / "manifest.json").unlink()


@plain("chain: shards tiny")
def a_manifest_sealed_again_but_not_its_children(workspace: Path, card: Path) -> None:
    reseal(workspace / "shards" / "tiny", recipe={"name": "another"})


@plain("chain: shards tiny")
def a_child_that_claims_another_parent(workspace: Path, card: Path) -> None:
    folder = workspace / "samples" / "pairs"
    parents = json.loads((folder / "manifest.json").read_bytes())["parents"]
    sealed = reseal(folder, parents=[parents[0], parents[1] | {"digest": "1" * 64}])
    manifest = read_manifest(card)
    reseal(
        card, parents=[manifest.parents[0].model_dump(), manifest.parents[1].model_dump() | {"digest": sealed.digest}]
    )


@plain("documents: manifest.json")
def a_parent_digest_edited_in_the_card(workspace: Path, card: Path) -> None:
    text = json.loads((card / "manifest.json").read_bytes())
    text["parents"][0]["digest"] = "2" * 64
    (card / "manifest.json").write_text(json.dumps(text))


@plain("chain: shards elsewhere")
def a_card_of_an_artifact_that_is_not_there(workspace: Path, card: Path) -> None:
    parents = json.loads((card / "manifest.json").read_bytes())["parents"]
    reseal(card, parents=[parents[0] | {"name": "elsewhere"}, parents[1]])


# --- the card's documents -------------------------------------------------------------------------------------------


@plain("figures: rows.kept: stated 27, found 26")
def a_figure_edited(workspace: Path, card: Path) -> None:
    edit_text(card / "figures.json", '"rows.kept": 26', '"rows.kept": 27')


@forged("figures: rows.kept: stated 27, found 26")
def a_figure_edited_and_sealed(workspace: Path, card: Path) -> None:
    edit_text(card / "figures.json", '"rows.kept": 26', '"rows.kept": 27')


@forged("figures: rows.licences")
def a_figure_left_out(workspace: Path, card: Path) -> None:
    values = json.loads((card / "figures.json").read_bytes())
    del values["rows.licences"]
    (card / "figures.json").write_text(json.dumps(values))


@forged("figures: pictures.faces")
def a_figure_made_up(workspace: Path, card: Path) -> None:
    values = json.loads((card / "figures.json").read_bytes())
    (card / "figures.json").write_text(json.dumps(values | {"pictures.faces": 0}))


@forged("documents: README.md line")
def a_number_in_the_readme(workspace: Path, card: Path) -> None:
    edit_text(card / "README.md", "Pictures kept: 26", "Pictures kept: 260")


@forged("documents: card.html line")
def a_caption_in_the_page(workspace: Path, card: Path) -> None:
    edit_text(card / "card.html", "a white box", "a happy child")


@forged("documents: card.html picture 1")
def a_thumbnail_in_the_page(workspace: Path, card: Path) -> None:
    text = (card / "card.html").read_text()
    start = text.index(DATA_URI_PREFIX)
    other = data_uri(small_picture(picture(5, 64, 64), 144))
    (card / "card.html").write_text(text[:start] + other + text[text.index('"', start) :])


@forged("documents: croissant.json line")
def a_licence_in_the_croissant(workspace: Path, card: Path) -> None:
    edit_text(card / "croissant.json", "publicdomain/zero/1.0", "by/4.0")


@forged("documents: eu-summary.md line")
def a_line_of_the_summary(workspace: Path, card: Path) -> None:
    edit_text(card / "eu-summary.md", "robots.txt | Disallow", "robots.txt | Allow")


@plain("documents: facts.yaml")
def a_fact_edited(workspace: Path, card: Path) -> None:
    edit_text(card / "facts.yaml", "Not needed, because", "Everyone agreed, because")


@forged("documents: facts.yaml")
def a_fact_edited_and_sealed(workspace: Path, card: Path) -> None:
    edit_text(card / "facts.yaml", "Not needed, because", "Everyone agreed, because")


@plain("documents: README.md: stated a document of the card, found missing")
def a_document_removed(workspace: Path, card: Path) -> None:
    (card / "README.md").unlink()


# --- rows, by a forger who seals the chain again ---------------------------------------------------------------------


@forged(f"source: shards tiny {url_sample_id(url(7), caption(7))}", shards={"seen": 29, "kept": KEPT, "dropped": {
    "duplicate_exact": 1, "robots_disallowed": 1, "timeout": 1}})  # fmt: skip
def a_drop_row_removed(workspace: Path, card: Path) -> None:
    edit_rows(_shard(workspace, "00000.parquet"), lambda rows: [row for row in rows if row["reason"] != "not_found"])


@forged(
    "figures: rows.drops",
    shards={"seen": NUM_URLS, "kept": KEPT, "dropped": {"duplicate_exact": 1, "robots_disallowed": 1, "timeout": 2}},
)
def another_drop_reason(workspace: Path, card: Path) -> None:
    def change(rows: list[Row]) -> None:
        next(row for row in rows if row["reason"] == "not_found")["reason"] = "timeout"

    edit_rows(_shard(workspace, "00000.parquet"), change)


@forged("reason: stated mislaid, found not on the closed list")
def a_reason_that_does_not_exist(workspace: Path, card: Path) -> None:
    def change(rows: list[Row]) -> None:
        next(row for row in rows if row["reason"] == "not_found")["reason"] = "mislaid"

    edit_rows(_shard(workspace, "00000.parquet"), change)


@forged("decision: stated maybe")
def a_decision_that_is_none(workspace: Path, card: Path) -> None:
    def change(rows: list[Row]) -> None:
        next(row for row in rows if row["reason"] == "not_found")["decision"] = "maybe"

    edit_rows(_shard(workspace, "00000.parquet"), change)


@forged("stated no such sample, found members in the tar", shards={"seen": 29, "kept": KEPT - 1, "dropped": DROPPED})
def a_kept_row_removed(workspace: Path, card: Path) -> None:
    edit_rows(_shard(workspace, "00000.parquet"), lambda rows: rows[1:])


@forged(f"rows: tiny/00000 {FIRST_ID}: stated kept, found not in the tar")
def a_sample_taken_out_of_the_tar(workspace: Path, card: Path) -> None:
    edit_tar(_shard(workspace), lambda samples: samples.pop(0) and None)


@forged("stated one row, found two rows of one key", shards={"seen": 31, "kept": KEPT + 1, "dropped": DROPPED})
def a_row_twice(workspace: Path, card: Path) -> None:
    edit_rows(_shard(workspace, "00000.parquet"), lambda rows: [rows[0], *rows])


@forged(f"rows: tiny/00000 {FIRST_ID} caption")
def a_caption_edited_in_the_tar(workspace: Path, card: Path) -> None:
    edit_tar(_shard(workspace), lambda samples: samples[0][1].update(txt=caption(0).replace("white", "black").encode()))


@forged(f"rows: tiny/00000 {FIRST_ID} caption")
def a_caption_edited_in_the_table(workspace: Path, card: Path) -> None:
    edit_rows(_shard(workspace, "00000.parquet"), lambda rows: rows[0].update(caption="something else"))


@forged(f"rows: tiny/00000 {FIRST_ID} sample_id")
def a_caption_edited_everywhere(workspace: Path, card: Path) -> None:
    other = caption(0).replace("white", "black")

    def change(samples: list[tuple[str, dict[str, bytes]]]) -> None:
        members = samples[0][1]
        members.update(txt=other.encode(), json=edit_json(members["json"], caption=other))

    edit_tar(_shard(workspace), change)
    edit_rows(_shard(workspace, "00000.parquet"), lambda rows: rows[0].update(caption=other))


@forged(f"source: shards tiny {FIRST_ID}")
def a_sample_exchanged_for_one_with_a_true_id(workspace: Path, card: Path) -> None:
    other = caption(0).replace("white", "black")
    key = url_sample_id(url(0), other)

    def change(samples: list[tuple[str, dict[str, bytes]]]) -> None:
        members = samples[0][1]
        members.update(txt=other.encode(), json=edit_json(members["json"], caption=other, sample_id=key, key=key))
        samples[0] = (key, members)

    edit_tar(_shard(workspace), change)
    edit_rows(_shard(workspace, "00000.parquet"), lambda rows: rows[0].update(caption=other, sample_id=key, key=key))


@forged(f"rows: tiny/00000 {FIRST_ID} licence: stated CC-BY-4.0, found CC0-1.0")
def a_licence_edited_in_the_table(workspace: Path, card: Path) -> None:
    edit_rows(_shard(workspace, "00000.parquet"), lambda rows: rows[0].update(licence="CC-BY-4.0"))


@forged(f"rows: tiny/00000 {FIRST_ID} width: stated 480, found 48")
def a_width_edited_in_the_table(workspace: Path, card: Path) -> None:
    edit_rows(_shard(workspace, "00000.parquet"), lambda rows: rows[0].update(width=480))


@forged(f"rows: tiny/00000 {FIRST_ID} url")
def a_url_edited_in_the_table(workspace: Path, card: Path) -> None:
    edit_rows(_shard(workspace, "00000.parquet"), lambda rows: rows[0].update(url="http://nice.example.org/0.jpg"))


@forged(f"rows: tiny/00000 {FIRST_ID} sample_id")
def a_url_edited_everywhere(workspace: Path, card: Path) -> None:
    other = "http://nice.example.org/0.jpg"

    def change(samples: list[tuple[str, dict[str, bytes]]]) -> None:
        samples[0][1].update(json=edit_json(samples[0][1]["json"], url=other))

    edit_tar(_shard(workspace), change)
    edit_rows(_shard(workspace, "00000.parquet"), lambda rows: rows[0].update(url=other))


def _edit_everywhere(workspace: Path, **values: object) -> None:
    """In the record and in the row of the first sample alike."""

    def change(samples: list[tuple[str, dict[str, bytes]]]) -> None:
        samples[0][1].update(json=edit_json(samples[0][1]["json"], **values))

    edit_tar(_shard(workspace), change)
    edit_rows(_shard(workspace, "00000.parquet"), lambda rows: rows[0].update(values))


@forged(f"source: shards tiny {FIRST_ID} licence: stated CC0-1.0, found CC-BY-4.0")
def a_licence_edited_everywhere(workspace: Path, card: Path) -> None:
    _edit_everywhere(workspace, licence="CC-BY-4.0")


@forged(f"source: shards tiny {FIRST_ID} domain: stated nice.example.org, found {HOSTS[0]}")
def a_domain_edited_everywhere(workspace: Path, card: Path) -> None:
    _edit_everywhere(workspace, domain="nice.example.org")


@forged(f"source: shards tiny {url_sample_id(url(7), caption(7))} licence")
def a_licence_of_a_dropped_row_edited(workspace: Path, card: Path) -> None:
    def change(rows: list[Row]) -> None:
        next(row for row in rows if row["reason"] == "not_found")["licence"] = "CC0-1.0-or-so"

    edit_rows(_shard(workspace, "00000.parquet"), change)


@forged(f"rows: tiny/00000 {'f' * 32} key: stated {'f' * 32}, found {FIRST_ID}")
def a_sample_under_another_key(workspace: Path, card: Path) -> None:
    def rename(samples: list[tuple[str, dict[str, bytes]]]) -> None:
        samples[0] = ("f" * 32, samples[0][1] | {"json": edit_json(samples[0][1]["json"], key="f" * 32)})

    edit_tar(_shard(workspace), rename)
    edit_rows(_shard(workspace, "00000.parquet"), lambda rows: rows[0].update(key="f" * 32))


@forged("a name that leads out of the workspace")
def a_parent_that_lies_elsewhere(workspace: Path, card: Path) -> None:
    manifest = read_manifest(workspace / "shards" / "tiny")
    parents = [parent.model_dump() | {"name": "../../sources/tiny"} for parent in manifest.parents]
    reseal(workspace / "shards" / "tiny", parents=parents)


@forged(f"rows: tiny/00000 {FIRST_ID} sha256")
def a_picture_exchanged_in_the_tar(workspace: Path, card: Path) -> None:
    edit_tar(_shard(workspace), lambda samples: samples[0][1].update(jpg=picture(17)))


@forged("media_offset")
def two_samples_exchanged_in_the_tar(workspace: Path, card: Path) -> None:
    edit_tar(_shard(workspace), lambda samples: samples.reverse())


@forged("counts: shards tiny kept", shards={"seen": NUM_URLS - 1, "kept": KEPT - 1, "dropped": DROPPED})
def counts_forged(workspace: Path, card: Path) -> None:
    return None


@forged("counts: samples pairs dropped too_few_images", samples={"seen": 8, "kept": 8, "dropped": {}})
def a_drop_of_the_builder_denied(workspace: Path, card: Path) -> None:
    return None


@forged("sha256")
def a_picture_exchanged_in_a_built_sample(workspace: Path, card: Path) -> None:
    edit_tar(_built(workspace), lambda samples: samples[0][1].update({"1.jpg": picture(17)}))


@forged("stated a picture of its parents")
def a_picture_exchanged_in_a_built_sample_and_its_row(workspace: Path, card: Path) -> None:
    import hashlib

    other = picture(17)

    def change(rows: list[Row]) -> None:
        with Image.open(io.BytesIO(other)) as image:
            rows[0]["media"][1] |= {"sha256": hashlib.sha256(other).hexdigest(), "width": image.width}

    edit_tar(_built(workspace), lambda samples: samples[0][1].update({"1.jpg": other}))
    edit_rows(_built(workspace, "00000.parquet"), change)


@forged("which leads out of the workspace")
def a_medium_outside_of_the_workspace(workspace: Path, card: Path) -> None:
    def change(rows: list[Row]) -> None:
        rows[0]["media"][0] |= {"path": "/dev/zero", "bytes": 2**40}

    def take_out(samples: list[tuple[str, dict[str, bytes]]]) -> None:
        del samples[0][1]["0.jpg"]

    edit_rows(_built(workspace, "00000.parquet"), change)
    edit_tar(_built(workspace), take_out)


@forged("its parts hash to")
def parents_of_a_built_sample_edited(workspace: Path, card: Path) -> None:
    def change(samples: list[tuple[str, dict[str, bytes]]]) -> None:
        members = samples[0][1]
        parents = json.loads(members["json"])["parents"]
        members["json"] = edit_json(members["json"], parents=parents[::-1])

    edit_tar(_built(workspace), change)


@forged("stated parent")
def a_parent_that_was_never_kept(workspace: Path, card: Path) -> None:
    lost = url_sample_id(url(7), caption(7))

    def change(samples: list[tuple[str, dict[str, bytes]]]) -> None:
        members = samples[0][1]
        parents = json.loads(members["json"])["parents"]
        members["json"] = edit_json(members["json"], parents=[lost, *parents[1:]])

    edit_tar(_built(workspace), change)


@forged("trained_tokens")
def tokens_edited_in_the_table(workspace: Path, card: Path) -> None:
    edit_rows(_built(workspace, "00000.parquet"), lambda rows: rows[0].update(trained_tokens=9999))


@forged("plain_tokens")
def plain_tokens_edited_in_the_table(workspace: Path, card: Path) -> None:
    edit_rows(_built(workspace, "00000.parquet"), lambda rows: rows[0].update(plain_tokens=1))


@forged("cut_tokens")
def tokens_of_cut_pictures_edited_in_the_table(workspace: Path, card: Path) -> None:
    edit_rows(_built(workspace, "00000.parquet"), lambda rows: rows[0].update(cut_tokens=None))


@forged("text_tokens")
def a_word_added_to_a_built_sample(workspace: Path, card: Path) -> None:
    def change(samples: list[tuple[str, dict[str, bytes]]]) -> None:
        members = samples[0][1]
        segments = json.loads(members["json"])["segments"]
        segments[1]["text"] += " and a happy child"
        members["json"] = edit_json(members["json"], segments=segments)

    edit_tar(_built(workspace), change)


@forged("rows: pairs/00000")
def a_kind_edited_in_the_table(workspace: Path, card: Path) -> None:
    edit_rows(_built(workspace, "00000.parquet"), lambda rows: rows[0].update(kind="video"))


@forged(f"source: shards tiny {url_sample_id(url(7), caption(7))} caption")
def a_caption_of_a_dropped_row_edited(workspace: Path, card: Path) -> None:
    def change(rows: list[Row]) -> None:
        next(row for row in rows if row["reason"] == "not_found")["caption"] = "something else"

    edit_rows(_shard(workspace, "00000.parquet"), change)


@forged(f"source: shards tiny {FIRST_ID} caption")
def a_caption_edited_under_the_mark_of_a_redaction(workspace: Path, card: Path) -> None:
    _redact(workspace, "a happy child at [url]")


def _redact(workspace: Path, text: str) -> None:
    def change(samples: list[tuple[str, dict[str, bytes]]]) -> None:
        members = samples[0][1]
        members.update(txt=text.encode(), json=edit_json(members["json"], caption=text))

    edit_tar(_shard(workspace), change)

    def change_rows(rows: list[Row]) -> None:
        rows[0]["caption"] = text

    edit_rows(_shard(workspace, "00000.parquet"), change_rows)


def test_a_caption_that_was_truly_redacted_is_no_forgery(workspace: Path, datacards: Path) -> None:
    _redact(workspace, caption(0).replace("scene 0", "[phone]"))
    card = datacards / "demo" / "1.0.0"
    reseal_all(workspace, card)
    subjects = [check.subject for check in audit(card, workspace).checks if not check.passed]
    assert not any(FIRST_ID in subject and subject.endswith(("caption", "sample_id")) for subject in subjects), subjects


def test_a_card_of_another_version_of_owl3_is_told_to_be_one(workspace: Path, datacards: Path) -> None:
    card = datacards / "demo" / "1.0.0"
    reseal(card, tools={"owl3": "0.0.1"})
    assert audit(card, workspace).passed  # what it shows is what this version shows
    edit_text(card / "README.md", "Pictures kept", "Pictures stored")
    lines = [check.line() for check in audit(card, workspace).checks if not check.passed]
    assert any("documents: made by: stated owl3 0.0.1" in line for line in lines), lines


def test_rows_count_once_however_many_versions_of_their_artifact_are_claimed(workspace: Path, datacards: Path) -> None:
    folder, card = workspace / "samples" / "pairs", datacards / "demo" / "1.0.0"
    tokenizer, shards = json.loads((folder / "manifest.json").read_bytes())["parents"]
    reseal(folder, parents=[tokenizer, shards | {"digest": "1" * 64}])
    false = {check.area for check in audit(card, workspace).checks if not check.passed}
    assert false == {"chain", "documents"}  # the documents name the digest


def test_an_audit_in_several_processes_says_the_same(workspace: Path, datacards: Path) -> None:
    flip_byte(workspace / "shards" / "tiny" / "00001.tar")
    folder = datacards / "demo" / "1.0.0"
    alone, together = (audit(folder, workspace, processes=number) for number in (1, 2))
    assert not alone.passed
    assert alone == together

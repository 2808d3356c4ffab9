"""What can only be decided with the whole corpus in view."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from owl3.curate.blocklist import Blocked, Blocklist, load_blocklists
from owl3.curate.contamination import Benchmark, Fingerprints, hash_words, overlap_lists
from owl3.curate.decide import CaptionRules
from owl3.curate.dedup import DedupConfig
from owl3.curate.overview import Looks, Verdict, as_table, look
from owl3.curate.retry import stay_dropped
from owl3.errors import InputError

NOTHING_BLOCKED = Blocked(frozenset(), frozenset(), frozenset(), frozenset(), ())


def row(number: int, **changes: Any) -> dict[str, Any]:
    media = changes.get("media_sha256", f"media {number}")
    known = {
        "sample_id": f"{number:032x}",
        "canonical_url": f"http://a.example/{number}",
        "domain": "a.example",
        "caption": f"caption {number}",
        "reason": None,
        "answered": True,
        "media_sha256": media,
        "same_media": media,
        "phash": None,
    }
    return known | changes


def reasons(rows: list[dict[str, Any]], **looks: Any) -> dict[int, str | None]:
    given_looks = {
        "dedup": DedupConfig(),
        "captions": CaptionRules(),
        "dead_host_failures": 3,
        "blocked": NOTHING_BLOCKED,
    } | looks
    found = look(as_table(rows), Looks(**given_looks))
    return {int(sample_id, 16): verdict.reason for sample_id, verdict in found.items()}


def silent(number: int, host: str) -> dict[str, Any]:
    return row(number, domain=host, reason="timeout", answered=False, media_sha256=None, same_media=None)


def test_removal_lists_know_a_domain_in_every_spelling(tmp_path: Path) -> None:
    (tmp_path / "domains.txt").write_text("# gone\n*.Bücher.example\nphotos.example.\n", encoding="utf-8")
    blocked = load_blocklists([Blocklist(kind="domain", file="domains.txt")], tmp_path)
    listed = ("xn--bcher-kva.example", "a.xn--bcher-kva.example", "photos.example", "a.photos.example.")
    assert all(blocked.has_row(row(1, domain=domain)) for domain in listed)
    assert not blocked.has_row(row(1, domain="notphotos.example"))


@pytest.mark.parametrize(("kind", "entry"), [("phash", b"f" * 17), ("phash", b"no hash"), ("url", b"\xff\xfe")])
def test_a_removal_list_of_something_else_is_told(tmp_path: Path, kind: Any, entry: bytes) -> None:
    (tmp_path / "list.txt").write_bytes(entry + b"\n")
    with pytest.raises(InputError, match=rf"list\.txt: not a list of {kind}"):
        load_blocklists([Blocklist(kind=kind, file="list.txt")], tmp_path)


def test_a_host_is_dead_when_enough_of_its_rows_failed_and_none_was_answered() -> None:
    rows = [silent(number, "dead.example") for number in range(3)]
    rows += [silent(number, "slow.example") for number in (10, 11, 12)] + [row(13, domain="slow.example")]
    rows += [silent(20, "rare.example")]
    assert reasons(rows) == dict.fromkeys(range(3), "dead_host")


def test_the_smallest_id_of_equal_bytes_is_kept() -> None:
    rows = [row(number, media_sha256="same") for number in (5, 3, 9)]
    assert reasons(rows) == {5: "duplicate_exact", 9: "duplicate_exact"}


def test_one_picture_under_several_captions_can_be_kept() -> None:
    rows = [row(1, media_sha256="same"), row(2, media_sha256="same"), row(3, media_sha256="same", caption="caption 1")]
    dedup = DedupConfig(exact="media_and_caption")
    assert reasons(rows, dedup=dedup) == {3: "duplicate_exact"}


def test_near_duplicates_are_found_among_what_is_left() -> None:
    rows = [row(1, phash=f"{0:016x}"), row(2, phash=f"{3:016x}"), row(3, phash=f"{2**40 - 1:016x}")]
    assert reasons(rows) == {2: "duplicate_near"}
    assert reasons(rows, dedup=DedupConfig(near_radius=None)) == {}


def test_bytes_under_many_urls_are_dropped_altogether() -> None:
    rows = [row(number, media_sha256="grey") for number in range(4)]
    assert set(reasons(rows, dedup=DedupConfig(placeholder_urls=4)).values()) == {"placeholder_image"}
    same_url = [entry | {"canonical_url": "http://a.example/x"} for entry in rows]
    assert set(reasons(same_url, dedup=DedupConfig(placeholder_urls=4)).values()) == {"duplicate_exact"}


def test_a_caption_may_come_so_often_and_no_more() -> None:
    rows = [row(number, caption="sale") for number in (4, 1, 3, 2)] + [row(9)]
    assert reasons(rows, captions=CaptionRules(max_repeats=2)) == {3: "caption_repeated", 4: "caption_repeated"}


def test_listed_hashes_are_removed() -> None:
    known = np.array([0xFF], dtype=np.uint64)
    blocked = Blocked(frozenset(), frozenset(), frozenset(), frozenset({"media 1"}), ((known, 1),))
    rows = [row(1), row(2, phash=f"{0xFE:016x}"), row(3, phash=f"{0xF0:016x}"), row(4)]
    assert reasons(rows, blocked=blocked) == {1: "blocklisted", 2: "blocklisted"}


def test_listed_urls_and_domains_are_refused_before_the_fetch() -> None:
    blocked = Blocked(frozenset({"http://a.example/1"}), frozenset({"bad.example"}), frozenset(), frozenset(), ())
    assert blocked.has_row(row(1)) and not blocked.has_row(row(2))
    assert blocked.has_row(row(2, domain="cdn.bad.example")) and not blocked.has_row(row(2, domain="notbad.example"))


def benchmark(**settings: Any) -> Fingerprints:
    """A benchmark that holds media 2 and something like it, caption 1, and three words in a row."""
    config = Benchmark.model_validate({"name": "b", "texts": ["x"], "ngram": 3, "radius": 1} | settings)
    texts = {hash_words(["caption", "1"]): frozenset({"q1"})}
    grams = {hash_words(["red", "dogs", "run"]): frozenset({"q2"})}
    shown = {"media 2": frozenset({"a.jpg"})}
    return Fingerprints(config, shown, np.array([6], np.uint64), ["like.jpg"], grams, texts)


@pytest.mark.parametrize(("action", "reason"), [("drop", "contaminated"), ("flag", None)])
def test_captions_of_a_benchmark_are_dropped_or_flagged(action: str, reason: str | None) -> None:
    rows = [row(1), row(2), row(3)]
    assert reasons(rows, benchmarks=[benchmark(on_text=action)]) == {1: reason, 2: "contaminated"}
    assert reasons(rows, benchmarks=[benchmark(on_image=action)]) == {1: "contaminated", 2: reason}


def test_of_two_benchmarks_the_one_that_drops_decides() -> None:
    both = [benchmark(on_image="flag"), benchmark(name="strict")]
    for order in (both, both[::-1]):
        found = look(as_table([row(2)]), Looks(DedupConfig(), CaptionRules(), 3, NOTHING_BLOCKED, order))
        assert found == {f"{2:032x}": Verdict("contaminated", benchmark="strict")}


def test_what_flagged_rows_show_and_quote_is_listed_by_name() -> None:
    prints = benchmark(on_text="flag")
    rows = as_table([row(1), row(2, phash=f"{7:016x}"), row(3, caption="red dogs run"), row(4)])
    assert overlap_lists(rows, [prints, benchmark(name="strict")]) == {"b": ["a.jpg", "like.jpg", "q1", "q2"]}
    assert overlap_lists(rows.slice(3), [prints]) == {"b": []}


_ROWS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.integers(0, 7), st.sampled_from([None, "timeout"])),
    max_size=12,
)


@given(_ROWS, st.randoms(use_true_random=False))
def test_verdicts_do_not_depend_on_the_order_of_rows(values: list[Any], rng: random.Random) -> None:
    rows = [
        row(number, media_sha256=media, caption=text, phash=f"{bits:016x}", reason=reason, answered=reason is None)
        for number, (media, text, bits, reason) in enumerate(values)
    ]
    looks = {"dedup": DedupConfig(near_radius=1, placeholder_urls=4), "captions": CaptionRules(max_repeats=2)}
    shuffled = rng.sample(rows, len(rows))
    assert reasons(shuffled, **looks) == reasons(rows, **looks)


@given(_ROWS)
def test_pictures_that_come_later_never_bring_a_duplicate_back(values: list[Any]) -> None:
    rows = [
        row(number, media_sha256=f"media {bits}", caption=text, phash=f"{bits:016x}")  # same bytes, same hash
        for number, (_, text, bits, _) in enumerate(values)
    ]
    looks = {"dedup": DedupConfig(near_radius=1)}
    late = {number for number, (_, _, _, reason) in enumerate(values) if reason}
    early = [entry if int(entry["sample_id"], 16) not in late else entry | {"reason": "timeout"} for entry in rows]
    dropped_before = {number for number, reason in reasons(early, **looks).items() if reason != "dead_host"} - late
    assert dropped_before <= reasons(rows, **looks).keys()


def test_what_an_earlier_version_dropped_stays_dropped(tmp_path: Path) -> None:
    old = [
        {"sample_id": f"{n:032x}", "reason": reason, "duplicate_of": None, "benchmark": None}
        for n, reason in enumerate([None, "caption_repeated", "timeout", "duplicate_exact"])
    ]
    pq.write_table(pa.Table.from_pylist(old), tmp_path / "00000.parquet")
    verdicts = {f"{3:032x}": Verdict("duplicate_near")}
    stay_dropped(tmp_path, ["00000"], as_table([row(number) for number in range(4)]), verdicts)
    assert {int(key, 16): verdict.reason for key, verdict in verdicts.items()} == {
        1: "caption_repeated",
        3: "duplicate_near",
    }


def test_an_empty_corpus_has_no_verdicts() -> None:
    assert (
        look(
            pa.Table.from_pylist([], schema=as_table([]).schema),
            Looks(DedupConfig(), CaptionRules(), 3, NOTHING_BLOCKED),
        )
        == {}
    )

"""What a SIGKILL leaves behind is still whole."""

from pathlib import Path

import pytest

from owl3.curate.spool import Body, Outcome, Spool
from owl3.samples import url_id


def fetched(name: str) -> Outcome:
    return Outcome(url_id(f"http://a.example/{name}"), None, facts={"width": 3})


def filled(folder: Path) -> None:
    with Spool(folder) as spool:
        spool.append(fetched("1"), Body(b"one"))
        spool.append(Outcome(url_id("http://a.example/2"), "not_found", "HTTP 404", 404))
        spool.append(fetched("3"), Body(b"three", b"THREE UPRIGHT"))


def test_bodies_come_back_after_a_restart(tmp_path: Path) -> None:
    filled(tmp_path)
    with Spool(tmp_path) as spool:
        assert len(spool) == 3
        third = spool.get(url_id("HTTP://A.example:80/3#x"))  # one URL, however it is spelt
        assert third is not None and third.facts == {"width": 3}
        assert spool.body(third) == b"three" and spool.body(third, made=True) == b"THREE UPRIGHT"
        first = spool.get(url_id("http://a.example/1"))
        assert first is not None and spool.body(first, made=True) == b"one"


@pytest.mark.parametrize("lost_bytes", [1, 20, 200, 5000])
def test_a_torn_journal_loses_its_last_rows_only(tmp_path: Path, lost_bytes: int) -> None:
    filled(tmp_path)
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-lost_bytes])
    with Spool(tmp_path) as spool:
        before = len(spool)
        assert before < 3
        for name in ("1", "3"):
            if spool.get(fetched(name).url_id) is None:
                spool.append(fetched(name), Body(name.encode() * 4))
        again = spool.get(fetched("3").url_id)
        assert again is not None and spool.body(again) == b"3333"


def test_a_line_without_its_bytes_does_not_count(tmp_path: Path) -> None:
    filled(tmp_path)
    bodies = tmp_path / "bodies.bin"
    bodies.write_bytes(bodies.read_bytes()[:-1])
    with Spool(tmp_path) as spool:
        assert spool.get(fetched("3").url_id) is None and spool.get(fetched("1").url_id) is not None
    assert bodies.read_bytes() == b"one"


def test_forgotten_rows_can_be_fetched_again(tmp_path: Path) -> None:
    filled(tmp_path)
    gone = url_id("http://a.example/2")
    with Spool(tmp_path) as spool:
        spool.forget({gone})
        assert spool.get(gone) is None
        spool.append(Outcome(gone, None), Body(b"two"))
    with Spool(tmp_path) as spool:
        assert len(spool) == 3
        second = spool.get(gone)
        assert second is not None and spool.body(second) == b"two"

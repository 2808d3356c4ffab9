"""What was fetched so far, in a form that a SIGKILL cannot hurt.

    journal.jsonl   one line per finished URL: {"url_id": …, "reason": null, "sha256": …, "offset": 0, "bytes": 5123, …}
    bodies.bin      the bodies, one after the other

A body is appended before its line, so a line always points at whole bytes; a torn last line and bytes without a line
are cut off when the spool is opened again. So a kill loses at most the rows in flight.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Outcome:
    """How fetching one URL ended."""

    url_id: str
    reason: str | None  # None: the body is there
    message: str = ""
    http_status: int | None = None
    redirected: bool = False  # of a failure: the URL's host did answer, whatever it redirects to did
    final_url: str = ""
    rights_signal: str = "none"
    rights_value: str = ""
    sha256: str | None = None  # of the body as fetched
    offset: int = 0
    num_bytes: int = 0
    made_offset: int = 0
    made_bytes: int = 0  # what is stored in place of the body; 0 when that is the body itself
    facts: dict[str, Any] | None = None  # ImageFacts or VideoFacts
    size: list[int] | None = None  # of the picture to store; zeros: can't be resized; None: left to img2dataset
    # what follows is evidence: it differs from run to run
    started: str = ""
    seconds: float = 0.0
    attempts: int = 0
    address: str = ""

    @property
    def is_for_engine(self) -> bool:
        """Is there a picture that img2dataset still has to resize?"""
        return self.reason is None and self.size is None

    def to_line(self) -> bytes:
        """Its line in the journal."""
        known = {name: getattr(self, name) for name in self.__slots__}  # `asdict` takes ten times as long
        return json.dumps(known, ensure_ascii=False).encode("utf-8") + b"\n"


@dataclass(frozen=True, slots=True)
class Body:
    """Bytes to be spooled with an outcome."""

    data: bytes
    made: bytes = b""


def bodies_path(folder: Path) -> Path:
    """Where a spool holds its bodies."""
    return folder / "bodies.bin"


class Spool:
    """Append-only store of outcomes and bodies; one process writes at a time (see the run's lock)."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.bodies_path = bodies_path(folder)
        self._journal_path = folder / "journal.jsonl"
        self._outcomes: dict[str, Outcome] = {}
        self._bodies_end = self._recover()
        self._journal = self._journal_path.open("ab")
        self._bodies = self.bodies_path.open("ab")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Flush to disk and close."""
        for handle in (self._bodies, self._journal):
            handle.flush()
            os.fsync(handle.fileno())
            handle.close()

    def _recover(self) -> int:
        """Read the journal up to its last whole line, cut the rest off both files, and return the end of the bodies."""
        bodies_bytes = self.bodies_path.stat().st_size if self.bodies_path.exists() else 0
        good, end = 0, 0
        if self._journal_path.exists():
            with self._journal_path.open("rb") as handle:
                for line in handle:
                    outcome = _parse(line)
                    if outcome is None or _end(outcome) > bodies_bytes:
                        break
                    self._outcomes[outcome.url_id] = outcome
                    good += len(line)
                    end = max(end, _end(outcome))
            os.truncate(self._journal_path, good)
        if bodies_bytes > end:
            os.truncate(self.bodies_path, end)
        return end

    def __len__(self) -> int:
        return len(self._outcomes)

    def get(self, key: str) -> Outcome | None:
        """The outcome of a URL, or None while it has none."""
        return self._outcomes.get(key)

    def outcomes(self) -> Iterator[Outcome]:
        """All outcomes, in the order in which they ended."""
        return iter(self._outcomes.values())

    def append(self, outcome: Outcome, body: Body | None = None) -> Outcome:
        """Store an outcome with its body; returns it with the body's place filled in."""
        if body is not None:
            outcome = replace(
                outcome,
                sha256=hashlib.sha256(body.data).hexdigest(),
                offset=self._bodies_end,
                num_bytes=len(body.data),
                made_offset=self._bodies_end + len(body.data),
                made_bytes=len(body.made),
            )
            self._bodies.write(body.data)
            self._bodies.write(body.made)
            self._bodies.flush()
            self._bodies_end += len(body.data) + len(body.made)
        self._journal.write(outcome.to_line())
        self._journal.flush()
        self._outcomes[outcome.url_id] = outcome
        return outcome

    def body(self, outcome: Outcome, made: bool = False) -> bytes:
        """Read a body back; with `made`, what was made of it to be stored."""
        offset, num_bytes = outcome.offset, outcome.num_bytes
        if made and outcome.made_bytes:
            offset, num_bytes = outcome.made_offset, outcome.made_bytes
        with self.bodies_path.open("rb") as handle:
            data = os.pread(handle.fileno(), num_bytes, offset)
        assert len(data) == num_bytes, f"{self.bodies_path}: ends inside the body of {outcome.url_id}"
        return data

    def forget(self, keys: set[str]) -> None:
        """Drop the outcomes of some URLs, so that they are fetched again; their bytes stay as dead space."""
        kept = [outcome for outcome in self._outcomes.values() if outcome.url_id not in keys]
        lines = b"".join(outcome.to_line() for outcome in kept)
        self._journal.close()
        aside = self._journal_path.with_suffix(".aside")
        aside.write_bytes(lines)
        aside.replace(self._journal_path)
        self._journal = self._journal_path.open("ab")
        self._outcomes = {outcome.url_id: outcome for outcome in kept}


def _parse(line: bytes) -> Outcome | None:
    if not line.endswith(b"\n"):
        return None
    try:
        known = json.loads(line)
        return Outcome(**{name: known[name] for name in Outcome.__slots__ if name in known})
    except (ValueError, TypeError):
        return None


def _end(outcome: Outcome) -> int:
    if not outcome.num_bytes:
        return 0
    return max(outcome.offset + outcome.num_bytes, outcome.made_offset + outcome.made_bytes)

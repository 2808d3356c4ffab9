"""One pass over a tar: its members in order, and the hash of the whole file.

The file is read once, a window at a time. The hash of the file is fed a window at once, and members are handed out as
views of it while it is in the processor's cache, so that what else is asked of their bytes costs no second reading.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from owl3.errors import InputError
from owl3.shards import END_BLOCK, other_members, plain_header

WINDOW_BYTES = 1 << 18
"""What is read at once: small enough for a core's own cache. A larger member makes it larger."""

_BLOCK = tarfile.BLOCKSIZE


class TarPass:
    """Iterate over it, once: (name, offset, view of the bytes), the view good until the next one is asked for.

    Attributes:
        sha256: Of the whole file, once the iteration has ended or failed.
        is_plain: Whether every header is one that `tar_header` writes; from the first other one on, `tarfile` reads.

    Raises:
        InputError: (while iterating) the tar is damaged; everything before the damage has been yielded.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sha256 = ""
        self.is_plain = True

    def __iter__(self) -> Iterator[tuple[str, int, memoryview]]:
        with FileIO(self.path) as file:
            window = _Window(file)
            damage = ""
            while window.filled - window.at >= _BLOCK or window.holds(_BLOCK):
                at = window.at
                header = bytes(window.view[at : at + _BLOCK])
                name, size = plain_header(header)
                if name is None:
                    self.is_plain = header == END_BLOCK
                    break
                whole = _BLOCK + size + -size % _BLOCK
                if at + whole > window.filled:
                    if not window.holds(whole):
                        damage = f"ends inside {name}"
                        break
                    at = window.at
                yield name, window.start + at + _BLOCK, window.view[at + _BLOCK : at + _BLOCK + size]
                window.at = at + whole
            else:  # other tools may leave the end out
                if window.filled > window.at:
                    damage = "ends inside a header"
                elif not window.start + window.at:
                    damage = "empty file"
            strange = window.start + window.at
            self.sha256 = window.hash_rest()
            if damage:
                raise InputError(f"{self.path}: not a whole tar ({damage}); build it again")
            if not self.is_plain:
                file.seek(strange)
                for member, content in other_members(file, self.path):
                    yield member.name, member.offset, memoryview(content)


class _Window:
    """The part of a file that is in memory, at the front of it what is looked at.

    Attributes:
        view: The memory; it begins at `start` in the file, and `view[at:filled]` are the bytes not yet looked at.
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.view = memoryview(bytearray(WINDOW_BYTES))
        self.start = self.at = self.filled = 0

    def holds(self, amount: int) -> bool:
        """Read on until so many bytes are there to look at; False where the file ends before."""
        while self.filled - self.at < amount:
            self._make_room(amount)
            if not self._read():
                return False
        return True

    def hash_rest(self) -> str:
        """Read to the end; returns the hash of the whole file as 64 hex digits."""
        self.filled = 0
        while self._read():
            self.filled = 0
        return self._digest.hexdigest()

    def _read(self) -> int:
        amount = self._file.readinto(self.view[self.filled :])
        self._digest.update(self.view[self.filled : self.filled + amount])
        self.filled += amount
        return amount

    def _make_room(self, amount: int) -> None:
        rest = self.view[self.at : self.filled]
        target = self.view if amount <= len(self.view) else memoryview(bytearray(amount))
        target[: len(rest)] = rest
        self.view, self.start, self.at, self.filled = target, self.start + self.at, 0, len(rest)

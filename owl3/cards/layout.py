"""One pass over a tar that is laid out as its table says: the sizes of its members are known before it is read.

Headers need no parsing then: all of a window are compared at once with what the shard writer writes, and members stand
where they must stand. The file is read once, and hashed a window at a time. A tar that is laid out in any other way is
not read here but by `tarpass.py`, which asks nothing of it.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from owl3.shards import plain_names

WINDOW_BYTES = 1 << 20
"""What is read at once: what a core's own cache holds, or nearly. A larger member makes it larger."""

HEADERS = 512
"""How many are compared at once: a quarter of a megabyte."""

Sizes = NDArray[np.int64]

_BLOCK = tarfile.BLOCKSIZE


class NotLaidOut(Exception):
    """The tar is not what its table says; which of the two is wrong is for others to find."""


class LaidOut:
    """Iterate over it, once: views of the next members' bytes, in order, good until more are asked for.

    Attributes:
        offsets: Of the members' first bytes.
        names: Of the members, as bytes; all of them once the iteration has ended.
        sha256: Of the whole file, once the iteration has ended.

    Raises:
        NotLaidOut: (also while iterating) there is anything else in the tar, or less. What was handed out till then is
            not to be relied on.
    """

    def __init__(self, path: Path, sizes: Sizes) -> None:
        self.path = path
        self.sizes = sizes
        self.names: list[bytes] = []
        self.sha256 = ""
        file_bytes = path.stat().st_size
        if sizes.size and not 0 <= sizes.min() <= sizes.max() <= file_bytes:  # before sums that might not fit
            raise NotLaidOut
        edges = np.concatenate([np.zeros(1, np.int64), np.cumsum(_BLOCK + sizes + -sizes % _BLOCK)])
        self._starts, self._ends = edges[:-1], edges[1:]
        self.offsets = self._starts + _BLOCK
        end = int(edges[-1])
        self._rest = file_bytes - end
        if -(-(end + 2 * _BLOCK) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE != file_bytes:
            raise NotLaidOut
        self._window, self._places = memoryview(b""), list[int]()
        self._headers: list[NDArray[np.uint8]] = []

    def name(self, number: int) -> bytes:
        """Of one of those that were handed out last; whether its header is a true one is seen to later."""
        at = self._places[number] - _BLOCK
        return bytes(self._window[at : at + tarfile.LENGTH_NAME]).rstrip(b"\0")

    def __iter__(self) -> Iterator[list[memoryview]]:
        digest = hashlib.sha256()
        with FileIO(self.path) as file:
            for first, last, window in self._windows(file):
                digest.update(window)
                begin = self._starts[first]
                blocks = np.frombuffer(window, np.uint8).reshape(-1, _BLOCK)
                self._check(blocks[(self._starts[first:last] - begin) // _BLOCK], last)
                places = self.offsets[first:last] - begin
                self._window, self._places = window, places.tolist()
                ends = (places + self.sizes[first:last]).tolist()
                yield [window[at:end] for at, end in zip(self._places, ends, strict=True)]
            end = memoryview(bytearray(self._rest))
            _fill(file, end)
        if any(end):
            raise NotLaidOut
        digest.update(end)
        self.sha256 = digest.hexdigest()

    def _windows(self, file: FileIO) -> Iterator[tuple[int, int, memoryview]]:
        """Numbers of the first member and of the one behind the last, and their bytes, headers and padding included."""
        memory = memoryview(bytearray(WINDOW_BYTES))
        first = 0
        while first < len(self.sizes):
            begin = self._starts[first]
            last = max(first + 1, int(np.searchsorted(self._ends, begin + WINDOW_BYTES, side="right")))
            amount = int(self._ends[last - 1] - begin)
            if amount > len(memory):
                memory = memoryview(bytearray(amount))
            _fill(file, memory[:amount])
            yield first, last, memory[:amount]
            first = last

    def _check(self, headers: NDArray[np.uint8], last: int) -> None:
        """Remember the headers up to a member; once there are many, or all, see whether they are the right ones."""
        self._headers.append(headers)
        checked = len(self.names)
        if last - checked >= HEADERS or last == len(self.sizes):
            names = plain_names(np.concatenate(self._headers), self.sizes[checked:last])
            if names is None:
                raise NotLaidOut
            self.names += names
            self._headers = []


def _fill(file: FileIO, view: memoryview) -> None:
    """Read until the view is full; a file that ends before is another one than its size was asked of."""
    filled = 0
    while filled < len(view):
        amount = file.readinto(view[filled:])
        if not amount:
            raise NotLaidOut
        filled += amount

"""Bytes of a tar by place: from a local disk, or from any store that fsspec speaks to, through a bounded cache."""

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any, Protocol

from owl3.errors import InputError, StaleError

_OPEN_FILES = 256
"""File handles kept per worker."""


class Tars(Protocol):
    """Where tars are read from."""

    def read(self, path: str, start: int, end: int, tar_bytes: int) -> bytes:
        """Read bytes `start` to `end` of a tar, by its path relative to the workspace.

        Args:
            tar_bytes: Size that the tar had when it was planned.

        Raises:
            InputError: there is no such tar.
            StaleError: it has another size now.
        """

    def close(self) -> None:
        """Let go of files and connections."""


class LocalTars:
    """Tars on a disk: one positioned read, no seek, no buffer."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self._handles: OrderedDict[str, int] = OrderedDict()

    def read(self, path: str, start: int, end: int, tar_bytes: int) -> bytes:
        """See `Tars`."""
        handle = self._handles.pop(path, None)
        if handle is None:
            handle = self._open(path, tar_bytes)
        self._handles[path] = handle
        data = os.pread(handle, end - start, start)
        if len(data) != end - start:
            raise stale(self.workspace / path, f"it ends before byte {end}")
        return data

    def _open(self, path: str, tar_bytes: int) -> int:
        try:
            handle = os.open(self.workspace / path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise InputError(f"{self.workspace / path}: missing; bring it back or build it again") from error
        size = os.fstat(handle).st_size
        if size != tar_bytes:
            os.close(handle)
            raise stale(self.workspace / path, f"it has {size} bytes, planned were {tar_bytes}")
        if len(self._handles) >= _OPEN_FILES:
            os.close(self._handles.popitem(last=False)[1])
        return handle

    def close(self) -> None:
        """See `Tars`."""
        while self._handles:
            os.close(self._handles.popitem()[1])


class RemoteTars:
    """Tars behind a URL (`s3://bucket/workspace`), read in blocks of which the last used ones are kept.

    With `shuffle: groups` a plan stays inside a few shards for a while: when those fit into `cache_bytes`, every block
    is fetched once, and shuffled reading costs about what reading from front to back would.
    """

    def __init__(self, url: str, *, block_bytes: int = 4 << 20, cache_bytes: int = 512 << 20) -> None:
        import fsspec

        # A connection of its own: one that is inherited from a parent process would hang.
        self._files, self._root = fsspec.core.url_to_fs(url, skip_instance_cache=True)
        self.url = url
        self.block_bytes = block_bytes
        self.max_blocks = max(2, cache_bytes // block_bytes)
        self._sizes: dict[str, int] = {}
        self._blocks: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self.fetched_bytes = 0

    def read(self, path: str, start: int, end: int, tar_bytes: int) -> bytes:
        """See `Tars`."""
        if self._size(path) != tar_bytes:
            raise stale(f"{self.url}/{path}", f"it has {self._size(path)} bytes, planned were {tar_bytes}")
        numbers = range(start // self.block_bytes, (end - 1) // self.block_bytes + 1)
        joined = b"".join(self._block(path, number) for number in numbers)
        first = numbers.start * self.block_bytes
        return joined[start - first : end - first]

    def _block(self, path: str, number: int) -> bytes:
        block = self._blocks.pop((path, number), None)
        if block is None:
            start = number * self.block_bytes
            end = min(start + self.block_bytes, self._sizes[path])
            try:
                block = bytes(self._files.cat_file(f"{self._root}/{path}", start=start, end=end))
            except FileNotFoundError as error:
                raise self._missing(path) from error
            self.fetched_bytes += len(block)
            if len(self._blocks) >= self.max_blocks:
                self._blocks.popitem(last=False)
        self._blocks[path, number] = block
        return block

    def _size(self, path: str) -> int:
        if path not in self._sizes:
            try:
                info: dict[str, Any] = self._files.info(f"{self._root}/{path}")
            except FileNotFoundError as error:
                raise self._missing(path) from error
            self._sizes[path] = int(info["size"])
        return self._sizes[path]

    def _missing(self, path: str) -> InputError:
        return InputError(f"{self.url}/{path}: missing; upload it again")

    def close(self) -> None:
        """See `Tars`."""
        self._blocks.clear()


def stale(path: Path | str, what: str) -> StaleError:
    """What to say when a tar is not the planned one."""
    return StaleError(f"{path}: {what}: the shard was rewritten or damaged after planning; bring it back or plan again")

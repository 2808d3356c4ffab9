"""Decode strangers' pictures and clips in a child process, with a deadline.

A hostile file can make a decoder loop, eat memory or crash. So decoding happens in children that hold nothing of value:
one that overruns its deadline is killed and replaced, one that dies is replaced, and the file gets its reason.

    python -m owl3.curate.inspector        # the child: requests on stdin, replies on stdout
    <- {"kind": "image", "bytes": 5123, "max_pixels": 64000000, …}\n  + 5123 bytes
    -> {"facts": {…}, "size": [640, 480], "bytes": 0, …}\n            or {"reason": "truncated_image", "message": "…"}
"""

import asyncio
import contextlib
import fcntl
import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, BinaryIO, Literal

from owl3 import lifeline
from owl3.curate.resize import Resizing
from owl3.malloc import keep_freed_pages
from owl3.media import IMAGE_FORMATS, MAX_PIXELS, MediaError, probe_image
from owl3.secrecy import bare_environment
from owl3.video import probe_video

_MEMORY_BYTES = 4 << 30
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Pictures are small and children several: threads of a linear algebra library would only wait for each other."""
_PIPE_BYTES = 1 << 20
"""What lies in a pipe before whoever fills it must wait: most pictures go over in one piece (Linux's highest)."""
_CHILD = (sys.executable, "-m", "owl3.curate.inspector")


Finish = Literal["unusual", "untouched", "all"]


@dataclass(frozen=True, slots=True)
class Looking:
    """What children look for, and what they make of a picture meanwhile.

    Attributes:
        resizing: How pictures are stored; None makes nothing of them.
        finish: Which pictures are made what is stored, and not left to img2dataset: those that it would get wrong
            (rotated ones …), also those that it would store as they came, or all.
    """

    kind: Literal["image", "video"] = "image"
    max_pixels: int = MAX_PIXELS
    formats: tuple[str, ...] = IMAGE_FORMATS
    resizing: Resizing | None = None
    finish: Finish = "untouched"


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a child found: facts, or a reason.

    Attributes:
        size: Width and height of what is to be stored; zeros when the picture can't be resized, None when that is left
            to img2dataset.
        made: What is to be stored; empty when that is what came.
    """

    facts: dict[str, Any] | None
    reason: str | None = None
    message: str = ""
    size: list[int] | None = None
    made: bytes = b""


class Inspectors:
    """A few children behind one awaitable call.

    Args:
        looking: What they look for.
        count: Children at most; each is started when it is first needed.
        deadline_s: For one picture or clip.
        command: What a child runs; a seam for tests.
    """

    def __init__(self, looking: Looking, count: int, deadline_s: float, command: Sequence[str] = _CHILD) -> None:
        self._request = asdict(looking)
        self._deadline_s = deadline_s
        self._command = command
        self._free: asyncio.Queue[asyncio.subprocess.Process | None] = asyncio.Queue()
        self._children: set[asyncio.subprocess.Process] = set()
        for _ in range(count):
            self._free.put_nowait(None)  # children are started when first needed

    async def inspect(self, data: bytes) -> Inspection:
        """Decode `data` in a child; never raises for anything the data does."""
        child = await self._free.get()
        try:
            if child is None:
                child = await self._start()
            async with asyncio.timeout(self._deadline_s):
                return await _ask(child, data, self._request)
        except TimeoutError:
            await self._kill(child)
            child = None
            return Inspection(None, "decode_timeout", f"not decoded in {self._deadline_s} s")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, _Nonsense) as error:
            await self._kill(child)
            child = None
            return Inspection(None, "undecodable", f"the decoder crashed ({type(error).__name__})")
        except BaseException:
            await self._kill(child)
            child = None
            raise
        finally:
            self._free.put_nowait(child)

    async def close(self) -> None:
        """End all children."""
        for child in list(self._children):
            await self._kill(child)

    async def _start(self) -> asyncio.subprocess.Process:
        child = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Should a stranger's bytes take the decoder over, it knows nothing worth telling.
            env=bare_environment() | _ONE_THREAD,
            limit=1 << 24,
        )
        self._children.add(child)
        return child

    async def _kill(self, child: asyncio.subprocess.Process | None) -> None:
        if child is None:
            return
        self._children.discard(child)
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def _ask(child: asyncio.subprocess.Process, data: bytes, request: dict[str, Any]) -> Inspection:
    assert child.stdin is not None and child.stdout is not None
    head = json.dumps(request | {"bytes": len(data)}).encode() + b"\n"
    child.stdin.write(head + data)  # in one piece: each write wakes the child
    await child.stdin.drain()
    line = await child.stdout.readuntil(b"\n")
    try:
        reply = json.loads(line)
        facts, reason, message, size = (reply[name] for name in ("facts", "reason", "message", "size"))
        return Inspection(facts, reason, message, size, made=await child.stdout.readexactly(reply["bytes"]))
    except (ValueError, KeyError, TypeError) as error:
        raise _Nonsense(f"{type(error).__name__}: {error}") from error


class _Nonsense(Exception):
    """A child answered something else than a reply: a decoder printed, or somebody took it over."""


def inspect_bytes(data: bytes, request: dict[str, Any]) -> Inspection:
    """What the child does with one request."""
    try:
        if request["kind"] == "video":
            return Inspection(probe_video(io.BytesIO(data)).to_json())
        return _inspect_picture(data, request)
    except MediaError as error:
        return Inspection(None, error.reason, str(error))


def _inspect_picture(data: bytes, request: dict[str, Any]) -> Inspection:
    """Take a picture's facts, and finish it where that is asked for or img2dataset would get it wrong."""
    facts = probe_image(data, request["max_pixels"], request["formats"])
    found = Inspection(facts.to_json())
    if request["resizing"] is None:
        return found
    resizing = Resizing(**request["resizing"])
    finish: Finish = request["finish"]
    if finish != "unusual" and resizing.leaves_alone(facts, data):
        return replace(found, size=[facts.width, facts.height])
    if facts.plain and finish != "all":
        return found
    made = resizing.apply(data, facts, request["max_pixels"])
    return replace(found, size=[made.width, made.height], made=made.data) if made else replace(found, size=[0, 0])


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer requests until the parent closes the pipe."""
    while line := requests.readline():
        request = json.loads(line)
        found = inspect_bytes(requests.read(request["bytes"]), request)
        reply = {"facts": found.facts, "reason": found.reason, "message": found.message, "size": found.size}
        replies.write(json.dumps(reply | {"bytes": len(found.made)}).encode() + b"\n" + found.made)
        replies.flush()


if __name__ == "__main__":
    lifeline.end_with_parent()  # also in the middle of a picture that never ends
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    keep_freed_pages()
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a user may have no more of them; a small one is only slower
            fcntl.fcntl(sys.stdin.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    with os.fdopen(sys.stdin.fileno(), "rb", buffering=_PIPE_BYTES) as requests:
        serve(requests, sys.stdout.buffer)

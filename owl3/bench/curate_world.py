"""What the curation benchmark fetches: pictures of the web's size, and a server in a process of its own."""

import functools
import http.server
import itertools
import multiprocessing
import shutil
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from owl3.errors import InputError
from owl3.media import encode_jpeg

HOSTS = 10
_SIDES_PX = (300, 580)
"""0.19 megapixels in the mean, as 385 photos of COCO and LAION/CC/SBU have."""


def write_pictures(folder: Path, count: int, photos: Path | None) -> list[Path]:
    """Write `count` JPEGs, named by number; the number tells the host that serves them.

    Args:
        photos: A folder of real ones, taken in turns; None makes some with a photo's amount of detail.

    Raises:
        InputError: the folder holds no JPEG.
    """
    folder.mkdir(parents=True)
    paths = [folder / f"{number:06d}.jpg" for number in range(count)]
    if photos is not None:
        found = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
        if not found:
            raise InputError(f"{photos}: holds no JPEG")
        for path, photo in zip(paths, itertools.cycle(found), strict=False):
            shutil.copy(photo, path)
        return paths
    rng = np.random.default_rng(0)
    for path in paths:
        width, height = (int(side) for side in rng.integers(*_SIDES_PX, 2))
        coarse = Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).resize((width, height))
        grain = rng.normal(0, 12, (height, width, 3))
        pixels = np.clip(np.asarray(coarse, dtype=np.float32) + grain, 0, 255).astype(np.uint8)
        path.write_bytes(encode_jpeg(Image.fromarray(pixels), 85))
    return paths


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stalls = False

    def log_message(self, *_: Any) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        """Serve a file; every tenth one never comes when hosts stall."""
        number = Path(self.path).stem
        if self.stalls and number.isdecimal() and int(number) % HOSTS == 0:
            time.sleep(3600)
        super().do_GET()


class _HttpServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_: Any) -> None:
        """Clients that gave up are no news."""


class Server:
    """The server, in a process of its own, so that its CPU time is not ours; gives its port."""

    def __init__(self, folder: Path, stalls: bool) -> None:
        self._folder, self._stalls = folder, stalls

    def __enter__(self) -> int:
        ours, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.Process(target=_serve, args=(self._folder, self._stalls, theirs), daemon=True)
        self._process.start()
        return int(ours.recv())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.join()


def _serve(folder: Path, stalls: bool, told: Any) -> None:
    _Handler.stalls = stalls
    server = _HttpServer(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    told.send(server.server_address[1])
    threading.Event().wait()

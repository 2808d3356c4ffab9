"""The files of a store: found, read, sent and brought, and asked for again when it is busy.

Credentials come from the environment alone (AWS_ACCESS_KEY_ID …, AWS_ENDPOINT_URL); a URL that holds any is refused.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from owl3.errors import ConfigError, InputError
from owl3.storage import partial_path, sha256_of

T = TypeVar("T")

_ATTEMPTS = 6
_PAUSE_S = 0.5
_CREDENTIALS = "credentials and host come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL …)"


class ObjectStore:
    """What lies below a URL that fsspec understands. Names are those below it.

    Every method tries again what a busy store refuses.

    Raises:
        ConfigError: no store, or one of no library that is installed.
        InputError: the store refuses, fails again and again, or can't be reached.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        options: dict[str, Any] = {}
        if url.startswith("s3://"):
            options = {"config_kwargs": {"retries": {"max_attempts": _ATTEMPTS, "mode": "standard"}}}
        elif url.startswith("file:"):
            options = {"auto_mkdir": True}
        self.url = url
        try:
            files, root = fsspec.core.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False, **options)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"--workspace {url}: {_said(error)}") from error
        if url.startswith(("http:", "https:")):
            raise ConfigError(f"--workspace {url}: a web server can't be written to; give a store, as in s3://bucket/w")
        self._files = files
        self._root = str(root).rstrip("/")

    def names(self) -> list[str]:
        """Every file there."""
        found = self._retry(self._find) if self.exists("") else []
        return sorted(str(name).removeprefix(self._root).lstrip("/") for name in found)

    def exists(self, name: str) -> bool:
        """Is there such a file, or anything below the URL for an empty name?"""
        return bool(self._retry(self._files.exists, f"{self._root}/{name}".rstrip("/")))

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return bytes(self._retry(self._files.cat_file, f"{self._root}/{name}"))

    def write(self, name: str, content: bytes) -> None:
        """Make or replace a file."""
        self._retry(self._files.pipe_file, f"{self._root}/{name}", content)

    def send(self, source: Path, name: str) -> None:
        """Copy a local file there."""
        self._retry(self._files.put_file, str(source), f"{self._root}/{name}")

    def bring(self, name: str, target: Path, sha256: str, size: int) -> bool:
        """Copy a file here, unless it is here; whether it had to be.

        Raises:
            InputError: it does not match its digest.
        """
        if target.is_file() and target.stat().st_size == size and sha256_of(target) == sha256:
            return False
        for _ in range(2):
            aside = partial_path(target)
            aside.parent.mkdir(parents=True, exist_ok=True)
            self._retry(self._files.get_file, f"{self._root}/{name}", str(aside))
            if sha256_of(aside) == sha256:
                aside.replace(target)
                return True
            aside.unlink()
        raise InputError(f"{self.url}/{name}: its content differs from its manifest; publish it again")

    def remove(self, name: str) -> None:
        """Take a file away."""
        self._retry(self._files.rm_file, f"{self._root}/{name}")

    def _find(self) -> list[str]:
        return list(self._files.find(self._root))

    def _retry(self, call: Callable[..., T], *arguments: Any) -> T:
        """Try again what a busy store refuses (5xx, lost connections), with growing pauses.

        Raises:
            FileNotFoundError: it is not there.
            InputError: as the store or its library said it; at once for what another attempt cannot cure.
        """
        for attempt in range(_ATTEMPTS):
            try:
                return call(*arguments)
            except FileNotFoundError:
                raise
            except PermissionError as error:
                raise InputError(f"{self.url}: the store refuses it: {_said(error)}; {_CREDENTIALS}") from error
            except OSError as error:
                if attempt == _ATTEMPTS - 1:
                    raise InputError(f"{self.url}: the store keeps failing: {_said(error)}") from error
                time.sleep(_PAUSE_S * 2**attempt)
            except Exception as error:  # the store's own library: no credentials, no such host, no network
                raise InputError(f"{self.url}: the store can't be asked: {_said(error)}; {_CREDENTIALS}") from error
        raise AssertionError("the last attempt returns or raises")


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

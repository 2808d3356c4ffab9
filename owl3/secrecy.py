"""What must not be told: passwords, tokens and signatures, kept out of every log, error, file and page.

Credentials come from the environment (or from Prefect's blocks) and nowhere else, so their values are known here:

    hide(text)           text that somebody will read: secrets become ***
    tells_secret(text)   text that will be kept: does it hold one?
    guard_output()       logs and tracebacks of this process, whoever writes them, go through `hide`
    silenced()           what a block raises goes through `hide`, for whoever shows errors his own way
    bare_environment()   for programs that read strangers' bytes: ours, without the secrets in it
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

HIDDEN = "***"
_MIN_LENGTH = 8
"""A shorter value of a variable is no secret that is worth the name, and hiding it would eat words."""

_SECRET_VARIABLE = re.compile(
    r"(?:SECRET|PASSWORD|PASSWD|PASSPHRASE|CONNECTION_STRING|AUTH_STRING)"
    r"|(?:^|_)(?:TOKENS?|API_?KEY|ACCESS_KEY|ACCOUNT_KEY|PRIVATE_KEY)(?:_|$)",
    re.IGNORECASE,
)
_NOT_THE_SECRET_ITSELF = re.compile(r"_(?:FILE|PATH|DIR|PARALLELISM)$", re.IGNORECASE)

_USERINFO = re.compile(r"(?<=[A-Za-z0-9+.-]{2})(:/{1,2})[^\s/?#'\"<>]+@")
_PARAMETER = r"""(
    x-[a-z]+-(?:signature|credential|security-token)
  | sig | lsig | signature | hmac | key-pair-id | (?:aws|oss)accesskeyid | googleaccessid
  | (?:[a-z]+[_-])?(?:token|secret) | (?:api|access|secret|private|subscription|account)[_-]?key | apikey
  | password | passwd | pwd | credentials? | authorization
)"""
_SIGNATURE = re.compile(rf"((?:[?&;]|\\u0026|%26){_PARAMETER}=)[^\s&\#;'\"<>\\]+", re.IGNORECASE | re.VERBOSE)
_BEARER = re.compile(r"\b(bearer|authorization:\s*basic)\s+[A-Za-z0-9+/_.~=-]{12,}", re.IGNORECASE)
_PRESIGNED = (
    {"x-amz-signature"},
    {"x-goog-signature"},
    {"x-oss-signature"},
    {"awsaccesskeyid", "signature"},
    {"googleaccessid", "signature"},
    {"ossaccesskeyid", "signature"},
    {"key-pair-id", "signature"},
    {"sv", "sig"},
)
"""Parameters by which stores know a URL that somebody signed: S3 (4 and 2), Google, OSS, CloudFront, Azure."""


def hide(text: str) -> str:
    """The text without values of secret variables, users and passwords in URLs, and signatures in their queries."""
    for value in _values(os.environ):
        text = text.replace(value, HIDDEN)
    return _BEARER.sub(rf"\1 {HIDDEN}", hide_in_urls(text))


def tells_secret(text: str) -> bool:
    """Whether a text holds a secret that `hide` would take out."""
    return hide(text) != text


def is_signed(url: str) -> bool:
    """Whether whoever has this URL may read what is behind it: one that a store's owner signed for somebody."""
    if "sig" not in url.lower():  # in nearly every one of billions of URLs
        return False
    names = {name.lower() for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)}
    return any(signs <= names for signs in _PRESIGNED)


def without_user(url: str) -> str:
    """The URL without user and password; all else stays as it is spelt.

    Raises:
        ValueError: when `url` can't be parsed.
    """
    if "@" not in url:
        return url
    parts = urlsplit(url)
    _, separator, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=host)) if separator else url


def bare_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """A copy without secret variables and without URLs that hold a password (proxies, databases)."""
    return {
        name: value for name, value in environment.items() if not _is_secret(name) and _USERINFO.search(value) is None
    }


def guard_output() -> None:
    """Let whatever this process logs, and what it says when it dies of a bug, pass through `hide`.

    It holds for every handler, those of other libraries too; a program calls it once, when it begins.
    """
    make = logging.getLogRecordFactory()
    if not isinstance(make, _Hiding):
        logging.setLogRecordFactory(_Hiding(make))
        sys.excepthook = _told
        threading.excepthook = lambda died: _told(died.exc_type, died.exc_value or died.exc_type(), died.exc_traceback)


@contextmanager
def silenced() -> Iterator[None]:
    """Guard the output while the block runs and ever after, and take secrets out of what it raises, causes included."""
    guard_output()
    try:
        yield
    except Exception as error:
        _hide_in(error)
        raise


def _hide_in(error: BaseException | None) -> None:
    while error is not None:
        error.args = tuple(hide(part) if isinstance(part, str) else part for part in error.args)
        if isinstance(error, OSError) and isinstance(error.strerror, str):  # it says this instead of its arguments
            error.strerror = hide(error.strerror)
            error.filename = hide(error.filename) if isinstance(error.filename, str) else error.filename
        error = error.__cause__ or error.__context__


class _Hiding:
    """Makes log records as another factory does, without the secrets."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._make(*args, **kwargs)
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # a wrong format: logging says so itself, when it comes to it
            return record
        if tells_secret(message):  # else untouched: some formatters look at the arguments
            record.msg, record.args = hide(message), ()
        if record.exc_info and record.exc_info[0] is not None:
            told = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
            if tells_secret(told):
                record.exc_text, record.exc_info = hide(told), None
        return record


def _told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(hide("".join(traceback.format_exception(kind, error, trace))))


def hide_in_urls(text: str) -> str:
    """The part of `hide` that looks at the text alone: for files that must be the same wherever they are made."""
    return _SIGNATURE.sub(rf"\1{HIDDEN}", _USERINFO.sub(rf"\1{HIDDEN}@", text))


def _is_secret(name: str) -> bool:
    return _SECRET_VARIABLE.search(name) is not None and _NOT_THE_SECRET_ITSELF.search(name) is None


def _values(environment: Mapping[str, str]) -> list[str]:
    """Every spelling of every secret in the environment; the longest first, as one may hold another."""
    found: set[str] = set()
    for name, value in environment.items():
        found.update(_passwords(value))
        if _is_secret(name):
            found.add(value)
    spelt = {way for value in found for way in (value, quote(value, safe="")) if len(value) >= _MIN_LENGTH}
    return sorted(spelt, key=len, reverse=True)


def _passwords(value: str) -> Iterator[str]:
    """The password of a URL, as it is written and as it is meant."""
    if "@" not in value or "://" not in value:
        return
    try:
        password = urlsplit(value).password
    except ValueError:
        return
    if password:
        yield from (password, unquote(password))

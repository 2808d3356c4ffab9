"""Reading benchmarks' own files: found by name below the task's folder, or refused with what was looked for."""

from __future__ import annotations

import base64
import binascii
import csv
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from owl3.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
VIDEO_SUFFIXES = (".mp4", ".webm", ".avi", ".mkv", ".mov", ".gif")


def find_files(folder: Path, *patterns: str) -> list[Path]:
    """All files that match the first pattern that any file matches (patterns are relative globs).

    Raises:
        InputError: none does; the patterns are named.
    """
    for pattern in patterns:
        found = sorted(path for path in folder.glob(pattern) if path.is_file())
        if found:
            return found
    raise InputError(f"{folder}: no file like {' or '.join(patterns)}; put the benchmark's own files there")


def read_json(path: Path) -> Any:
    """One JSON value, or JSON lines: a `.jsonl` file by its name, others where they are no single value.

    Raises:
        InputError: naming the file, and the line where lines can't be read, or a key that comes twice.
    """

    def unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise InputError(f"{path}: key {twice!r} comes twice")
        return found

    text = path.read_text(encoding="utf-8-sig")
    if path.suffix != ".jsonl":
        try:
            return json.loads(text, object_pairs_hook=unrepeated)
        except json.JSONDecodeError:
            pass  # then it must be lines
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            rows += [json.loads(line, object_pairs_hook=unrepeated)] if line.strip() else []
        except json.JSONDecodeError as error:
            raise InputError(f"{path}:{number}: neither JSON nor JSON lines ({error.msg})") from error
    return rows


def read_table(path: Path, delimiter: str) -> list[dict[str, str]]:
    """Rows of a csv or tsv with a header; fields may hold whole pictures (base64), so their size has no limit."""
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as lines:
        return list(csv.DictReader(lines, delimiter=delimiter))


def need(row: dict[str, Any], keys: Iterable[str], where: str) -> None:
    """Check that a row has what the task reads.

    Raises:
        InputError: naming what is missing.
    """
    missing = [key for key in keys if row.get(key) is None]
    if missing:
        raise InputError(f"{where}: lacks {', '.join(missing)}; is this the benchmark's own file?")


def media_path(folder: Path, name: str, *places: str, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> Path:
    """Where a medium lies: the first existing of folder/place/name, with and without a known suffix.

    A medium that is nowhere gives the first place: reading it later is an error that is counted and named.
    """
    candidates = [folder / place / name for place in (*places, "images", ".")]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
        for suffix in suffixes:
            other = candidate.with_name(candidate.name + suffix)
            if other.is_file():
                return other
    return candidates[0]


def inline_picture(text: str, where: str) -> bytes:
    """A picture that stands in a table as base64.

    Raises:
        InputError: it is no base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise InputError(f"{where}: the picture is no base64 ({error})") from error

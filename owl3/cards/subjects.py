"""What a person may ask about: URL, domain, licence, hash, picture file, sample id, step or checkpoint."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from owl3.cards import runs
from owl3.errors import InputError
from owl3.media import open_header, perceptual_hash
from owl3.samples import canonical_url
from owl3.storage import sha256_of

What = Literal["url", "domain", "licence", "sha256", "sample_id", "image", "step", "checkpoint"]

STEP_PATTERN = re.compile(r"([\w.-]+/[\w.-]+):(\d+)")
"""RUN/STAGE:STEP, what that one step held; RUN/STAGE@STEP is the checkpoint after so many steps."""

MAX_PHASH_BITS = 6
"""Perceptual hashes of 64 bits that differ in no more bits show the same picture (re-encoded, scaled)."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What was asked about: `values` are the ways it may stand in a table."""

    what: What
    text: str
    values: tuple[str, ...]


def understand(text: str, what: What | None = None) -> Subject:
    """Say what a person means by `text`; `what` settles it where the guess would be wrong.

    Raises:
        InputError: when it looks like nothing that can be traced.
    """
    kind = what or _guess(text)
    if kind == "url":
        return Subject("url", text, (text, canonical_url(text)))
    if kind == "domain":
        return Subject("domain", text, (text.lower(),))
    if kind == "image":
        path = Path(text)
        if not path.is_file():
            raise InputError(f"{path}: no such picture file")
        data = path.read_bytes()
        return Subject("image", text, (sha256_of(path), perceptual_hash(open_header(data).convert("L"))))
    if kind in ("sha256", "sample_id"):
        return Subject(kind, text, (text.lower(),))
    if kind in get_args(What):
        return Subject(kind, text, (text,))
    raise InputError(f"{text!r}: choose --as from {', '.join(get_args(What))}")


def _guess(text: str) -> What:
    if "://" in text:
        return "url"
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return "sha256"
    if re.fullmatch(r"[0-9a-fA-F]{32}", text):
        return "sample_id"
    if STEP_PATTERN.fullmatch(text):
        return "step"
    if runs.CHECKPOINT_PATTERN.search(text):
        return "checkpoint"
    if Path(text).is_file():
        return "image"
    if re.fullmatch(r"(?:[\w-]+\.)+[a-zA-Z][\w-]+", text):
        return "domain"
    return "licence"

"""Serve a person's own folders over local HTTP, so that they are fetched, checked and counted like any corpus.

    corpus:
      kind: folders
      folders: {coco: /data/coco, clips: /data/clips}

`/data/coco/train2017/1.jpg` is then fetched as http://coco.owl3.test/train2017/1.jpg, and a recipe finds the folder's
own json as `corpus/coco/annotations/…` (a link). For a folder with video files a table is written,
`corpus/tables/NAME.parquet` (url, caption, licence). The caption of a clip stands in a .txt file of its name, else in
the folder's conversations (json lists with `video` entries; the first answer), else it is made of the file's name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from owl3.config import Config, plain
from owl3.demo.routes import write_mounts, write_routes
from owl3.errors import ConfigError, InputError, StaleError
from owl3.storage import atomic_folder

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi")


class FoldersConfig(Config):
    """Which folders to serve, by the name of their host under .owl3.test."""

    kind: Literal["folders"]
    folders: dict[str, str | None] = Field(min_length=1)
    """A name without a folder must be given on the command line: corpus.folders.NAME=PATH."""
    licence: str = "unknown"
    """Of clips; pictures have theirs from the source's settings."""


def make_folders(corpus: Path, config: FoldersConfig) -> None:
    """Lay out `corpus` so that the server and the sources find the folders.

    Raises:
        ConfigError: a folder is not given. InputError: one does not exist. StaleError: others were served before.
    """
    mounts = {f"{name}.owl3.test": _existing(name, given) for name, given in config.folders.items()}
    about = corpus / "corpus.json"
    wanted = {"config": plain(config), "mounts": plain(mounts)}
    if about.is_file():
        if json.loads(about.read_text(encoding="utf-8")) != wanted:
            raise StaleError(f"{corpus}: other folders were served before; choose another workspace")
        return
    with atomic_folder(corpus) as aside:
        write_routes(aside / "routes.jsonl", [])
        write_mounts(aside, mounts)
        for name in config.folders:
            folder = mounts[f"{name}.owl3.test"]
            (aside / name).symlink_to(folder, target_is_directory=True)
            rows = list(_clips(folder, f"http://{name}.owl3.test/", config.licence))
            if rows:
                (aside / "tables").mkdir(exist_ok=True)
                pq.write_table(pa.Table.from_pylist(rows), aside / "tables" / f"{name}.parquet")
        (aside / "corpus.json").write_text(json.dumps(wanted, indent=1), encoding="utf-8")


def _existing(name: str, given: str | None) -> Path:
    if given is None:
        raise ConfigError(f"corpus.folders.{name}: no folder given; add corpus.folders.{name}=PATH to the command")
    folder = Path(given).expanduser().resolve()
    if not folder.is_dir():
        raise InputError(f"corpus.folders.{name}: {folder} is no folder")
    return folder


def _clips(folder: Path, base_url: str, licence: str) -> Iterator[dict[str, Any]]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())
    told = dict(_told(folder)) if files else {}
    for path in files:
        name = path.relative_to(folder).as_posix()
        beside = path.with_suffix(".txt")
        caption = beside.read_text(encoding="utf-8").strip() if beside.is_file() else told.get(path)
        words = " ".join(re.findall(r"[^\W\d_]+|\d+", path.stem))
        yield {"url": base_url + quote(name), "caption": caption or words, "licence": licence}


def _told(folder: Path) -> Iterator[tuple[Path, str]]:
    """(clip, first answer) of each conversation in the folder's json files; paths there start at their own file."""
    for file in sorted(folder.rglob("*.json")):
        try:
            rows = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{file}: can't be read as JSON: {error}") from error
        for row in rows if isinstance(rows, list) else []:
            if not isinstance(row, dict) or not isinstance(row.get("video"), str):
                continue
            said = [turn.get("value", turn.get("content")) for turn in row.get("conversations") or row["conversation"]]
            if len(said) > 1:
                yield file.parent / row["video"], " ".join(str(said[1]).split())

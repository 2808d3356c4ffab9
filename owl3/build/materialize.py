"""References into bytes: the same samples with the same ids in a set that needs its parents' tars no longer.

The tars are those that the build would have written with `store: bytes`.
"""

import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from filelock import FileLock

from owl3.build.drafts import Medium, Place
from owl3.build.media_reader import Gone, MediaReader, picture_facts
from owl3.build.run import work_folder
from owl3.config import digest_of
from owl3.errors import InputError
from owl3.manifest import Manifest, find_current, lock_path, now, read_manifest, tool_versions, write_manifest
from owl3.progress import SILENT, Progress
from owl3.shards import SAMPLE_INDEX, ShardWriter, read_member, write_index


def materialize(workspace: Path, name: str, into: str, progress: Progress = SILENT) -> Manifest:
    """Write `samples/INTO` with the bytes that `samples/NAME` refers to; shards that are done stay.

    Raises:
        InputError: when a medium is gone or not the one referred to.
    """
    workspace = workspace.absolute()
    source, folder = workspace / "samples" / name, workspace / "samples" / into
    parent = read_manifest(source)
    if parent.kind != "samples":
        raise InputError(f"{source}: is of kind {parent.kind}; only samples can be materialized")
    recipe = {**parent.recipe, "store": "bytes", "name": into, "materialized": name}
    with FileLock(lock_path(folder)):
        done = find_current(folder, recipe, [parent])
        if done is not None:
            shutil.rmtree(folder / ".work", ignore_errors=True)
            return done
        started = now()
        work = work_folder(folder, digest_of([recipe, parent.digest]))
        indexes = sorted(source.glob("[0-9][0-9][0-9][0-9][0-9].parquet"))
        progress.start(f"materialize {name}", len(indexes))
        with MediaReader(workspace) as reader:
            for index in indexes:
                if not (folder / index.name).is_file():
                    _copy_shard(index, folder, workspace, reader)
                progress.advance()
        progress.finish(f"{parent.counts.kept} samples")
        manifest = write_manifest(
            folder,
            kind="samples",
            name=into,
            recipe=recipe,
            parents=[parent],
            counts=parent.counts,
            stats=parent.stats,
            tools=tool_versions("pyarrow"),
            exclude=[".work/*"],
            started=started,
        )
        shutil.rmtree(work)
        return manifest


def _copy_shard(index: Path, folder: Path, workspace: Path, reader: MediaReader) -> None:
    rows = pq.read_table(index).to_pylist()
    tar_path = folder / f"{index.stem}.tar"
    with ShardWriter(tar_path) as tar:
        for row in rows:
            if row["decision"] == "kept":
                _copy_sample(row, index, tar, tar_path.relative_to(workspace).as_posix(), reader)
    write_index(folder / index.name, rows, SAMPLE_INDEX)


def _copy_sample(row: dict[str, Any], index: Path, tar: ShardWriter, tar_name: str, reader: MediaReader) -> None:
    """Append one sample, and point its index row at the copies."""
    members = {"json": read_member(index.with_suffix(".tar"), row["json_offset"], row["json_bytes"])}
    members |= dict(_media_members(row, index, reader))
    json_place, *places = tar.add(row["key"], members)
    row["json_offset"], row["json_bytes"] = json_place.offset, json_place.num_bytes
    for medium, place in zip(row["media"], places, strict=True):
        medium |= {"path": tar_name, "offset": place.offset, "bytes": place.num_bytes}


def _media_members(row: dict[str, Any], index: Path, reader: MediaReader) -> Iterator[tuple[str, bytes]]:
    for number, medium in enumerate(row["media"]):
        where = f"{index}: {row['key']}: medium {number}"
        try:
            data = reader.read(Medium(place=Place(medium["path"], medium["offset"], medium["bytes"])))
        except Gone as gone:
            raise InputError(f"{where} is gone ({gone.detail}); build the set again from what is left") from gone
        if sha256(data).hexdigest() != medium["sha256"]:
            raise InputError(f"{where} is not the one referred to: {medium['path']} was rewritten; build the set again")
        yield f"{number}.{picture_facts(data)[0]}", data

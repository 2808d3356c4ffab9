"""The one door to clip-retrieval: similarity of picture and caption, and an index that an auditor can search.

clip-retrieval 2.45 lives in a tool environment of its own and is called as a process. Its `inference` and `index` are
used, and its `back` on 127.0.0.1 only; its `filter` downloads one fixed model, so it is not.

    indexes/NAME/img_emb/img_emb_0.npy   text_emb/text_emb_0.npy     one row per kept sample, float16, unit length
    indexes/NAME/metadata/metadata_0.parquet                          image_path (= sample id), caption, url …
    indexes/NAME/image.index text.index                               for clip-retrieval's own back end and client

Scores depend on the machine's floating point in their last digits, so they are rounded to three decimals.
"""

import json
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Collection, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from owl3 import lifeline, tools
from owl3.config import Config
from owl3.curate.dedup import Groups
from owl3.errors import ConfigError, InputError
from owl3.storage import partial_path

logger = logging.getLogger(__name__)

_RUNNER = Path(tools.__file__).parent / "run_clip.py"
_SCORE_DIGITS = 3
_LOCAL_PREFIXES = ("hf_clip:", "open_clip:")

Run = Callable[[dict[str, Any]], dict[str, Any]]
"""Answers one request in the tool environment; a seam for tests."""


class ClipConfig(Config):
    """Which CLIP looks at pictures and captions, and what it decides."""

    model: str
    """clip-retrieval's spelling: `hf_clip:PATH_OR_ID`, `open_clip:NAME/WEIGHTS` or `open_clip:NAME//PATH.pt`."""
    min_similarity: float | None = Field(default=None, ge=-1, le=1)
    """Rows with a lower cosine are dropped as low_clip_similarity; None only scores."""
    batch_size: int = Field(default=64, ge=1)
    index: bool = True
    """Also build the index that `owl3 search` and clip-retrieval's back end open."""
    duplicates: float | None = Field(default=None, gt=0, le=1)
    """Cosine from which on two pictures count as the same (`duplicate_embedding`; the smallest id stays); None looks
    for none. Neighbours come from clip-retrieval's index, which is approximate: a few may be missed."""
    neighbours: int = Field(default=16, ge=2)
    """How many of the index's nearest are compared with each picture; chains of alike ones make groups."""


def run_clip(request: dict[str, Any]) -> dict[str, Any]:
    """Run one request in the tool environment.

    Raises:
        InputError: the environment is missing, or the program failed; the message ends with its last line.
    """
    done = subprocess.run(_command(request), capture_output=True, text=True, env=_environment())
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"clip-retrieval {request['do']} failed: {last[-300:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def _command(request: dict[str, Any]) -> list[str]:
    return lifeline.wrap([str(tools.python("clip")), str(_RUNNER), json.dumps(request)])


def _environment() -> dict[str, str]:
    return os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled"}


def check_model(config: ClipConfig, run: Run = run_clip) -> None:
    """Make sure that the model is there and answers, before any work is done.

    Raises:
        ConfigError: a local path does not exist.
        InputError: the model can't be loaded.
    """
    local = next((config.model.removeprefix(p) for p in _LOCAL_PREFIXES if config.model.startswith(p)), "")
    name, separator, weights = local.partition("//")
    path = f"/{weights}" if separator else name
    if path.startswith(("/", ".")) and not Path(path).exists():
        raise ConfigError(f"clip.model {config.model}: no such path {path}")
    run({"do": "encode", "model": config.model, "texts": ["a"], "images": []})


def embed(tars: Sequence[Path], out: Path, config: ClipConfig, run: Run = run_clip) -> None:
    """Embed pictures and captions of shards into `out/SHARD/`; shards that are done are left alone.

    Raises:
        InputError: clip-retrieval failed.
    """
    pending = [tar for tar in tars if not (out / tar.stem / "done").is_file()]
    if not pending:
        return
    aside = out / "running"
    shutil.rmtree(aside, ignore_errors=True)
    (aside / "in").mkdir(parents=True)
    for number, tar in enumerate(pending):
        (aside / "in" / f"{number:05d}.tar").symlink_to(tar.resolve())
    count = len(pending)
    run(
        {
            "do": "inference",
            "input_dataset": f"{aside / 'in'}/{{{0:05d}..{count - 1:05d}}}.tar"
            if count > 1
            else f"{aside}/in/00000.tar",
            "output_folder": str(aside / "out"),
            "input_format": "webdataset",
            "output_partition_count": count,  # one partition is one tar
            "batch_size": config.batch_size,
            "num_prepro_workers": 0,
            "enable_metadata": True,
            "clip_model": config.model,
            "wds_number_file_per_input_file": 1,
        }
    )
    digits = len(str(count)) if count >= 10 else 1
    for number, tar in enumerate(pending):
        _collect(aside / "out", f"{number:0{digits}d}", out / tar.stem)
    shutil.rmtree(aside)


def _collect(made: Path, part: str, folder: Path) -> None:
    """Keep what clip-retrieval wrote for one tar; a tar without samples has nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("img_emb", "text_emb"):
        path = made / kind / f"{kind}_{part}.npy"
        vectors = np.load(path).astype(np.float32) if path.is_file() else np.zeros((0, 1), np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        np.save(folder / f"{kind}.npy", (vectors / np.maximum(norms, 1e-12)).astype(np.float16))
    metadata = made / "metadata" / f"metadata_{part}.parquet"
    table = pq.read_table(metadata) if metadata.is_file() else pa.table({"image_path": pa.array([], pa.string())})
    pq.write_table(table, folder / "metadata.parquet")
    (folder / "done").touch()


def similarities(out: Path, shards: Sequence[str]) -> dict[str, float]:
    """Cosine of picture and caption by sample id."""
    found: dict[str, float] = {}
    for shard in shards:
        ids = pq.read_table(out / shard / "metadata.parquet", columns=["image_path"]).column(0).to_pylist()
        image, text = (np.load(out / shard / f"{kind}.npy").astype(np.float32) for kind in ("img_emb", "text_emb"))
        scores = np.einsum("nd,nd->n", image, text) if len(ids) else np.zeros(0)
        found |= {key: round(float(score), _SCORE_DIGITS) for key, score in zip(ids, scores, strict=True)}
    return found


def index_folder(workspace: Path, name: str) -> Path:
    """Where a corpus's index lies."""
    return workspace / "indexes" / name


def build_index(out: Path, shards: Sequence[str], kept: Set[str], folder: Path, run: Run = run_clip) -> None:
    """Put the embeddings of kept samples together and let clip-retrieval index them.

    Raises:
        InputError: clip-retrieval failed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    tables, vectors = [], dict[str, list[NDArray[np.float16]]](img_emb=[], text_emb=[])
    for shard in shards:
        table = pq.read_table(out / shard / "metadata.parquet")
        rows = [row for row, key in enumerate(table.column("image_path").to_pylist()) if key in kept]
        if rows:
            tables.append(table.take(pa.array(rows)))
            for kind, parts in vectors.items():
                parts.append(np.load(out / shard / f"{kind}.npy")[rows])
    if not tables:
        return
    for kind, parts in vectors.items():
        (folder / kind).mkdir(parents=True)
        np.save(folder / kind / f"{kind}_0.npy", np.concatenate(parts))
    (folder / "metadata").mkdir()
    pq.write_table(pa.concat_tables(tables, promote_options="permissive"), folder / "metadata" / "metadata_0.parquet")
    run({"do": "index", "embeddings_folder": str(folder), "index_folder": str(folder), "copy_metadata": False})


def index_distinct(
    out: Path, shards: Sequence[str], kept: Set[str], folder: Path, config: ClipConfig, *, run: Run = run_clip
) -> dict[str, str]:
    """Index what is kept, without what looks like something kept already; returns that, with what is kept instead.

    Raises:
        InputError: clip-retrieval failed.
    """
    if not config.index and config.duplicates is None:
        return {}
    build_index(out, shards, kept, folder, run)
    if config.duplicates is None or not (folder / "metadata").is_dir():
        return {}
    copies = find_alike(folder, config.duplicates, config.neighbours, run)
    if copies and config.index:
        build_index(out, shards, kept - copies.keys(), folder, run)
    return copies


def find_alike(folder: Path, min_cosine: float, neighbours: int, run: Run = run_clip) -> dict[str, str]:
    """Pictures of an index that look like another one with a smaller id, by sample id; groups are made by chains.

    Raises:
        InputError: the search failed.
    """
    ids = pq.read_table(folder / "metadata" / "metadata_0.parquet", columns=["image_path"]).column(0).to_pylist()
    pairs = folder / "pairs.npy"
    wanted = {"count": min(neighbours, len(ids)), "min_cosine": min_cosine, "pairs": str(pairs)}
    vectors = {"index": str(folder / "image.index"), "vectors": str(folder / "img_emb" / "img_emb_0.npy")}
    run({"do": "neighbours"} | vectors | wanted)
    order = np.argsort(np.array(ids), kind="stable")
    rank = np.empty(len(ids), np.int64)
    rank[order] = np.arange(len(ids))
    groups = Groups(len(ids))
    left, right = rank[np.load(pairs)].T if len(ids) else np.zeros((2, 0), np.int64)
    groups.join(left, right)
    pairs.unlink()
    roots = groups.roots(np.arange(len(ids), dtype=np.int64))
    return {ids[order[row]]: ids[order[root]] for row, root in enumerate(roots) if row != root}


def forget(workspace: Path, ids: Collection[str]) -> list[str]:
    """Take samples out of all indexes, words and vectors; returns the names of the indexes that held any.

    What clip-retrieval made of the vectors goes whole; `serve` makes it again. A kill in between leaves no index, and
    not one whose words and vectors do not belong together.
    """
    changed = []
    for killed in (workspace / "indexes").glob(".*"):
        shutil.rmtree(killed)
    for path in sorted((workspace / "indexes").glob("*/metadata/metadata_0.parquet")):
        folder, table = path.parent.parent, pq.read_table(path)
        stay = pc.invert(pc.is_in(table["image_path"], pa.array(sorted(ids), pa.string())))
        if pc.all(stay).as_py() or not len(table):
            continue
        aside = partial_path(folder)
        shutil.rmtree(aside, ignore_errors=True)
        for kind in ("img_emb", "text_emb"):
            (aside / kind).mkdir(parents=True)
            vectors = np.load(folder / kind / f"{kind}_0.npy", mmap_mode="r")
            np.save(aside / kind / f"{kind}_0.npy", vectors[np.asarray(stay)])
        (aside / "metadata").mkdir()
        pq.write_table(table.filter(stay), aside / "metadata" / path.name)
        shutil.rmtree(folder)
        aside.replace(folder)
        changed.append(folder.name)
    return changed


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for: a text or a picture."""

    text: str | None = None
    image: Path | None = None


def search(
    workspace: Path, name: str, model: str, query: Query, *, count: int = 10, run: Run = run_clip
) -> list[dict[str, Any]]:
    """The samples of a corpus most like a text or a picture, best first, by exact search.

    Raises:
        InputError: the corpus has no index, or the picture is missing.
    """
    folder = _existing_index(workspace, name)
    if query.image is not None and not query.image.is_file():
        raise InputError(f"{query.image}: no such picture")
    texts = [query.text] if query.image is None else []
    images = [str(query.image.resolve())] if query.image else []
    vector = np.array(run({"do": "encode", "model": model, "texts": texts, "images": images})["vectors"][0])
    pictures = np.load(folder / "img_emb" / "img_emb_0.npy", mmap_mode="r")
    scores = np.concatenate(
        [pictures[start : start + 65_536].astype(np.float32) @ vector for start in range(0, len(pictures), 65_536)]
    )
    best = np.argsort(-scores, kind="stable")[:count]
    table = pq.read_table(folder / "metadata" / "metadata_0.parquet").take(pa.array(best))
    rows: list[dict[str, Any]] = table.to_pylist()
    return [row | {"score": round(float(scores[place]), _SCORE_DIGITS)} for row, place in zip(rows, best, strict=True)]


def serve(workspace: Path, name: str, model: str, port: int) -> int:
    """Run clip-retrieval's own back end (and its page, at `/`) over a corpus's index, on 127.0.0.1; returns its exit.

    Raises:
        InputError: the corpus has no index, or the tool environment is missing.
    """
    folder = _existing_index(workspace, name)
    if not (folder / "image.index").is_file():  # something was taken out of it
        request = {"embeddings_folder": str(folder), "index_folder": str(folder), "copy_metadata": False}
        run_clip({"do": "index"} | request)
    request = {"do": "serve", "folder": str(folder.resolve()), "name": name, "model": model, "port": port}
    return subprocess.run(_command(request), env=_environment(), check=False).returncode


def _existing_index(workspace: Path, name: str) -> Path:
    folder = index_folder(workspace, name)
    if not (folder / "metadata" / "metadata_0.parquet").is_file():
        raise InputError(f"{folder}: no index; curate {name} with a clip section (clip.index: true)")
    return folder

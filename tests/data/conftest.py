"""Samples artifacts as the builders write them, tiny."""

import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from owl3.manifest import Counts, Manifest, write_manifest
from owl3.samples import Sample, Segment, Turn, short_hash
from owl3.shards import SAMPLE_INDEX, ShardWriter, write_index
from owl3.storage import sha256_of
from owl3.template import render, tokenize
from owl3.tiling import choose_grid, tiles_when_cut
from owl3.tokens import TextTokenizer, save_tokenizer, train_tiny

TILE_PX = 28
WORDS = "a red blue green circle square triangle stands left right above below near the of two".split()  # noqa: SIM905
RELEASE = "241101"

MakeSamples = Callable[..., Manifest]


@pytest.fixture(scope="session")
def tokenizer() -> TextTokenizer:
    return train_tiny([" ".join(WORDS)] * 3, 400)


@pytest.fixture
def tokenizer_folder(tokenizer: TextTokenizer, tmp_path: Path) -> Path:
    save_tokenizer(tokenizer, tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def picture(seed: int, width: int = 40, height: int = 30) -> bytes:
    """A JPEG whose pixels tell its seed apart."""
    values = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    handle = io.BytesIO()
    Image.fromarray(values).resize((width, height)).save(handle, "JPEG")
    return handle.getvalue()


def conversation(name: str, number: int, num_images: int, num_words: int, kind: str = "instruct") -> Sample:
    """Pictures, a question and an answer of `num_words` words."""
    answer = " ".join(np.random.default_rng(number).choice(WORDS, num_words).tolist())
    segments = [*(Segment(image=k) for k in range(num_images)), Segment(text="what is it?"), Segment(text=answer)]
    asked = num_images + 1
    return Sample(
        id=short_hash(name, str(number)),
        kind=kind,
        segments=tuple(segments),
        turns=(Turn(role="user", start=0, end=asked), Turn(role="assistant", start=asked, end=asked + 1)),
        source=name,
        licence="CC0-1.0",
        builder="test",
        builder_version="1",
    )


def index_row(sample: Sample, sizes: Sequence[tuple[int, int]], tokenizer: TextTokenizer) -> dict[str, Any]:
    """The costs of a sample, as the builders count them."""

    def count(**how: Any) -> tuple[int, int]:
        text = tokenize(render(sample.segments, sample.turns, release=RELEASE, **how), tokenizer)
        return len(text.input_ids), sum(text.trained)

    text_tokens, trained_tokens = count(style="chat")
    plain_tokens, plain_trained_tokens = count(style="plain")
    grids = {k: choose_grid(*size, TILE_PX) for k, size in enumerate(sizes)}
    return {
        "sample_id": sample.id,
        "decision": "kept",
        "key": sample.id,
        "kind": sample.kind,
        "builder": sample.builder,
        "builder_version": sample.builder_version,
        "seed": 0,
        "source": sample.source,
        "licence": sample.licence,
        "parents": [],
        "text_tokens": text_tokens,
        "trained_tokens": trained_tokens,
        "plain_tokens": plain_tokens,
        "plain_trained_tokens": plain_trained_tokens,
        "cut_tokens": count(style="chat", grids=grids)[0] if grids else None,
        "images": len(sizes),
        "tiles": [tiles_when_cut(*size, TILE_PX) for size in sizes],
    }


def write_samples(
    workspace: Path,
    tokenizer: TextTokenizer,
    name: str,
    samples: Sequence[Sample],
    *,
    per_shard: int = 7,
    media: Callable[[int, int], bytes] | None = None,
    release: str = RELEASE,
) -> Manifest:
    """Write `samples/NAME`; every third index row is a drop, as in real life."""
    folder = workspace / "samples" / name
    folder.mkdir(parents=True)
    dropped = 0
    for number in range(0, len(samples), per_shard):
        shard = f"{number // per_shard:05d}"
        rows: list[dict[str, Any]] = []
        with ShardWriter(folder / f"{shard}.tar") as tar:
            for position, sample in enumerate(samples[number : number + per_shard]):
                pictures = [
                    media(number + position, k) if media else picture(1000 * number + 10 * position + k)
                    for k in range(sample.num_media)
                ]
                members = {"json": sample.to_json(), **{f"{k}.jpg": data for k, data in enumerate(pictures)}}
                first, *others = tar.add(sample.id, members)
                row = index_row(sample, [(40, 30)] * sample.num_media, tokenizer)
                row |= {
                    "shard": shard,
                    "position": position,
                    "json_offset": first.offset,
                    "json_bytes": first.num_bytes,
                }
                path = f"samples/{name}/{shard}.tar"
                row["media"] = [
                    {"path": path, "offset": m.offset, "bytes": m.num_bytes, "sha256": "", "width": 40, "height": 30}
                    for m in others
                ]
                rows.append(row)
                if position % 3 == 2:
                    rows.append(
                        {"sample_id": short_hash("drop", sample.id), "decision": "dropped", "reason": "empty_text"}
                    )
                    dropped += 1
        write_index(folder / f"{shard}.parquet", rows, SAMPLE_INDEX)
    return write_manifest(
        folder,
        kind="samples",
        name=name,
        counts=Counts(
            seen=len(samples) + dropped, kept=len(samples), dropped={"empty_text": dropped} if dropped else {}
        ),
        stats={"tokenizer_digest": tokenizer.digest, "release": release, "tile_px": TILE_PX},
    )


def draw_samples(
    workspace: Path,
    tokenizer: TextTokenizer,
    name: str,
    count: int,
    *,
    images: tuple[int, int] = (1, 1),
    words: tuple[int, int] = (2, 20),
    **how: Any,
) -> Manifest:
    """Write `samples/NAME` with conversations of drawn sizes."""
    rng = np.random.default_rng(sum(name.encode()))
    num_images = rng.integers(images[0], images[1] + 1, count).tolist()
    num_words = rng.integers(words[0], words[1] + 1, count).tolist()
    samples = [conversation(name, i, num_images[i], num_words[i]) for i in range(count)]
    return write_samples(workspace, tokenizer, name, samples, **how)


@pytest.fixture
def make_samples(workspace: Path, tokenizer: TextTokenizer) -> MakeSamples:
    """Return `make(name, count, images=(1, 3), words=(1, 30), …)`, which writes `samples/NAME`."""
    return functools.partial(draw_samples, workspace, tokenizer)


def write_indexes(workspace: Path, name: str, count: int, per_shard: int) -> None:
    """Indexes with drawn costs and tars of the right size: all that planning reads."""
    folder = workspace / "samples" / name
    rng = np.random.default_rng(count)
    for shard in range(-(-count // per_shard)):
        rows = []
        for position, number in enumerate(range(shard * per_shard, min((shard + 1) * per_shard, count))):
            images = int(rng.integers(1, 9)) if name != "web" else 1
            row = {"sample_id": short_hash(name, str(number)), "decision": "kept", "position": position}
            row |= {"shard": f"{shard:05d}", "text_tokens": int(rng.integers(20, 280)), "trained_tokens": 10}
            row |= {"plain_tokens": 20, "plain_trained_tokens": 10, "cut_tokens": 290, "images": images}
            rows.append(row | {"tiles": [5] * images, "json_offset": 512 + 2048 * position, "json_bytes": 100})
        write_index(folder / f"{shard:05d}.parquet", rows, SAMPLE_INDEX)
        (folder / f"{shard:05d}.tar").write_bytes(bytes(2048 * len(rows)))
    write_manifest(
        folder,
        kind="samples",
        name=name,
        counts=Counts(seen=count, kept=count),
        stats={"tokenizer_digest": "0" * 64, "release": "241101", "tile_px": 378},
    )


def tree_digest(folder: Path) -> dict[str, str]:
    """sha256 of every file but the manifest, which holds times."""
    return {path.name: sha256_of(path) for path in folder.iterdir() if path.name not in ("manifest.json", ".lock")}

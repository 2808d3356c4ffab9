"""Make the demo's corpus: pictures and clips to be served, the table of their URLs, questions, and held-out sets.

    corpus.json               what it was made from; the folder appears whole or not at all
    expected.json             how many rows must be dropped under each reason
    routes.jsonl              what the server answers to each URL
    served/                   the files behind the URLs
    tables/scenes.parquet     url, caption, licence, similarity, punsafe, fault
    tables/clips.parquet      url, caption, licence
    instruct/scenes.json      conversations in LLaVA's layout, with pictures named by URL; clips.json likewise
    instruct/among-N.json     conversations about one of two to N pictures
    heldout/scenes-single/    questions.jsonl and its pictures; scenes-multi-N and scenes-video likewise
    truth.jsonl               what is on each picture and clip, by URL

Training and held-out sets never share a picture, nor a combination of two things (`Scene.held_out`), and every two
pictures differ by more bits of perceptual hash than a near duplicate may, except where a fault says otherwise.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any, Literal

import imagehash
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pydantic import Field

from owl3.config import Config, canonical_json, plain
from owl3.demo import clips, talk
from owl3.demo.conversations import about_clips, about_missing, about_one, about_several
from owl3.demo.faults import CLIPS, FAULTS, PHOTOS, Fault, bomb_png, expected_drops, fault, web_page
from owl3.demo.heldout import write_among, write_single, write_video
from owl3.demo.routes import Route, write_routes
from owl3.demo.scenes import KINDS, Scene, draw, jpeg_bytes, random_scene
from owl3.errors import InputError, StaleError
from owl3.storage import atomic_folder

MIN_HASH_DISTANCE = 8
"""Two different pictures differ by at least this many of the 64 bits of their perceptual hash."""

NEAR_HASH_DISTANCE = 2
"""A near copy differs from its original by at most this many."""

LICENCES = ("CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0")

ROW_CHANGES: dict[str, dict[str, Any]] = {
    "no-caption": {"caption": "  "},
    "not-free": {"licence": "all-rights-reserved"},
    "unsafe": {"punsafe": 0.97},
    "mismatch": {"similarity": 0.04},
}
"""What is wrong with the table's row, for faults that lie there and not in the server's answer."""


class ScenesConfig(Config):
    """How large a corpus to make. The rows of the fault schedule come on top of `pictures`."""

    kind: Literal["scenes"] = "scenes"
    seed: int = 0
    pictures: int = Field(default=800, ge=120)
    clips: int = Field(default=32, ge=4)
    conversations_among: dict[int, int] = Field(default={4: 800})
    """By N: how many conversations over two to N pictures; one per picture and one per clip are always made."""
    questions: int = Field(default=120, ge=8)
    """Questions in each held-out set of pictures."""
    video_questions: int = Field(default=48, ge=4)
    among: tuple[int, ...] = (2, 4)
    """One held-out set `scenes-multi-N` for each N."""


def make_corpus(folder: Path, config: ScenesConfig) -> dict[str, Any]:
    """Make the corpus in `folder` unless it is there; return what `corpus.json` says.

    Raises:
        StaleError: another corpus lies there.
    """
    about = folder / "corpus.json"
    if about.is_file():
        found: dict[str, Any] = json.loads(about.read_text(encoding="utf-8"))
        if found["config"] != plain(config):
            raise StaleError(
                f"{folder}: holds a corpus made with other settings; remove it or choose another workspace"
            )
        return found
    with atomic_folder(folder) as aside:
        return _Maker(aside, config).make()


def read_expected(folder: Path) -> dict[str, Any]:
    """How many rows each artifact must see and drop, from a corpus folder.

    Raises:
        InputError: no corpus was made there.
    """
    path = folder / "expected.json"
    if not path.is_file():
        raise InputError(f"{path}: not found; make the corpus first with `owl3 demo`")
    expected: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return expected


class _Maker:
    """One run of the generator: a random stream, the pictures so far, and what was written about them."""

    def __init__(self, folder: Path, config: ScenesConfig) -> None:
        self.folder = folder
        self.config = config
        self.rng = np.random.default_rng(config.seed)
        self.hashes = np.zeros(0, dtype=np.uint64)
        self.rows: list[dict[str, Any]] = []
        self.routes: list[Route] = []
        self.truth: list[dict[str, Any]] = []

    def make(self) -> dict[str, Any]:
        heldout = [self._new_picture(KINDS[i % len(KINDS)], held_out=True) for i in range(self.config.questions)]
        scenes = [self._new_picture(KINDS[i % len(KINDS)], held_out=False) for i in range(self.config.pictures)]
        urls = [self._serve_picture(f"{i:06d}.jpg", *scene) for i, scene in enumerate(scenes)]
        floors = self._make_heldout(heldout)
        asked = [heldout[i] for i in range(len(heldout)) if (self.folder / heldout_picture(i)).is_file()]
        for entry in FAULTS:
            self._make_fault(entry, scenes, asked)
        order = self.rng.permutation(len(self.rows))
        self._write_table("scenes", [self.rows[i] for i in order] + self._repeated_rows())
        clip_urls = self._make_clips()
        copied = fault("copy").count + fault("near-copy").count
        askable = list(zip(urls, [scene for scene, _ in scenes], strict=True))[copied:]
        conversations = [*about_one(askable, self.rng), *about_missing()]
        self._write_conversations("scenes", conversations)
        for most, count in sorted(self.config.conversations_among.items()):
            self._write_conversations(f"among-{most}", list(about_several(askable, count, most, self.rng)))
        self._write_conversations("clips", list(about_clips(clip_urls, self.rng)))
        write_routes(self.folder / "routes.jsonl", self.routes)
        self._write("truth.jsonl", b"".join(canonical_json(line) + b"\n" for line in self.truth))
        self._write("expected.json", json.dumps(self._expected(len(conversations)), indent=1).encode())
        about = {"config": plain(self.config), "rows": len(self.rows), "blind_floor": floors}
        self._write("corpus.json", json.dumps(about, indent=1).encode())
        return about

    def _new_picture(self, kind: str, held_out: bool) -> tuple[Scene, bytes]:
        """Draw scenes until one is on the right side of the split and like none before."""
        while True:
            scene = random_scene(kind, self.rng)
            if scene.held_out != held_out:
                continue
            data = jpeg_bytes(draw(scene))
            code = perceptual_hash(data)
            if self.hashes.size == 0 or int(np.bitwise_count(self.hashes ^ code).min()) >= MIN_HASH_DISTANCE:
                self.hashes = np.append(self.hashes, code)
                return scene, data

    def _serve_picture(self, name: str, scene: Scene, data: bytes) -> str:
        url = f"http://{PHOTOS}/{name}"
        self._serve(url, f"pictures/{name}", data)
        self._add_row(url, scene)
        return url

    def _serve(self, url: str, name: str, data: bytes, entry: Fault | None = None) -> None:
        self._write(f"served/{name}", data)
        route = Route(url=url, file=f"served/{name}")
        if entry is not None:
            route = route.model_copy(
                update={
                    "behaviour": entry.behaviour,
                    "status": entry.status,
                    "headers": dict(entry.headers),
                    "target": entry.target,
                }
            )
        self.routes.append(route)

    def _add_row(self, url: str, scene: Scene, **changes: Any) -> None:
        said = talk.captions(scene)
        row: dict[str, Any] = {
            "url": url,
            "caption": said[int(self.rng.integers(len(said)))],
            "licence": LICENCES[len(self.rows) % len(LICENCES)],
            "similarity": round(float(self.rng.uniform(0.26, 0.36)), 4),
            "punsafe": round(float(self.rng.uniform(0.0, 0.1)), 4),
            "fault": "",
        }
        self.rows.append({**row, **changes})
        self.truth.append({"url": url, "scene": scene.to_dict()})

    def _make_fault(self, entry: Fault, scenes: list[tuple[Scene, bytes]], heldout: list[tuple[Scene, bytes]]) -> None:
        if entry.name in ("same-row", "no-picture"):
            return  # a row again, and conversations: made where those are written
        changes = ROW_CHANGES.get(entry.name, {})
        originals = {"copy": scenes, "near-copy": scenes[fault("copy").count :], "leaked": heldout}.get(entry.name)
        for i in range(entry.count):
            scene, data = originals[i] if originals else self._new_picture(KINDS[i % len(KINDS)], held_out=False)
            suffix = "png" if entry.name == "bomb" else "jpg"
            url = f"http://{entry.host}/{entry.name}/{i:03d}.{suffix}"
            if entry.name == "bad-url":
                url = f"htp:/{entry.host}/{entry.name} {i}"
            else:
                self._serve(url, f"{entry.name}/{i:03d}.{suffix}", _spoil(entry.name, data, i), entry)
            self._add_row(url, scene, fault=entry.name, **changes)

    def _repeated_rows(self) -> list[dict[str, Any]]:
        healthy = [row for row in self.rows if not row["fault"]]
        return [{**row, "fault": "same-row"} for row in healthy[: fault("same-row").count]]

    def _make_clips(self) -> list[tuple[str, clips.Clip]]:
        made, rows = [], []
        for i in range(self.config.clips):
            clip = self._new_clip(moves=i % 2 == 0, held_out=False)
            url, name = f"http://{CLIPS}/{i:06d}.mp4", f"clips/{i:06d}.mp4"
            clips.write_clip(clip, self.folder / "served" / name)
            self.routes.append(Route(url=url, file=f"served/{name}"))
            self.truth.append({"url": url, "clip": clip.to_dict()})
            rows.append({"url": url, "caption": clips.clip_caption(clip), "licence": LICENCES[0]})
            made.append((url, clip))
        self._write_table("clips", rows)
        return made

    def _new_clip(self, moves: bool, held_out: bool) -> clips.Clip:
        while True:
            clip = clips.random_clip(moves, self.rng)
            if (hashlib.sha256(clip.key.encode()).digest()[0] % 4 == 0) == held_out:
                return clip

    def _make_heldout(self, pictures: list[tuple[Scene, bytes]]) -> dict[str, float]:
        """Write the held-out sets; return the blind floor of each."""
        folder, config = self.folder / "heldout", self.config
        floors = {"scenes-single": write_single(folder / "scenes-single", pictures, config.questions, self.rng)}
        for among in config.among:
            name = f"scenes-multi-{among}"
            floors[name] = write_among(folder / name, pictures, among, config.questions, self.rng)
        made = [self._new_clip(moves=i % 2 == 0, held_out=True) for i in range(config.video_questions)]
        floors["scenes-video"] = write_video(folder / "scenes-video", made, config.video_questions, self.rng)
        return floors

    def _expected(self, conversations: int) -> dict[str, Any]:
        """Counts per artifact, from the schedule alone."""
        drops = {artifact: expected_drops(artifact) for artifact in ("source scenes", "shards scenes", "samples talks")}
        rows = len(self.rows) + fault("same-row").count
        fetched = rows - sum(drops["source scenes"].values())
        seen = {"source scenes": rows, "shards scenes": fetched, "samples talks": conversations}
        return {
            artifact: {"seen": seen[artifact], "kept": seen[artifact] - sum(dropped.values()), "dropped": dropped}
            for artifact, dropped in drops.items()
        }

    def _write_conversations(self, name: str, conversations: list[dict[str, Any]]) -> None:
        self._write(f"instruct/{name}.json", json.dumps(conversations, indent=0).encode())

    def _write_table(self, name: str, rows: list[dict[str, Any]]) -> None:
        (self.folder / "tables").mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), self.folder / f"tables/{name}.parquet")

    def _write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def perceptual_hash(data: bytes) -> np.uint64:
    """The 64-bit DCT hash of a picture's bytes."""
    bits = imagehash.phash(Image.open(io.BytesIO(data))).hash
    return np.uint64(int.from_bytes(np.packbits(bits).tobytes(), "big"))


def heldout_picture(number: int) -> str:
    """Where a held-out picture lies, if a question about one picture asks for it."""
    return f"heldout/scenes-single/{number:04d}.jpg"


def _spoil(name: str, data: bytes, number: int) -> bytes:
    """The bytes that a fault's URL serves instead of the picture's own."""
    if name == "truncated":
        return data[: len(data) * 2 // 5]
    if name == "web-page":
        return web_page(number)
    if name == "bomb":
        return bomb_png()
    if name == "near-copy":
        return _near_copy(data)
    return data


def _near_copy(data: bytes) -> bytes:
    """The picture encoded again, as lossy as its hash allows."""
    picture, code = Image.open(io.BytesIO(data)), perceptual_hash(data)
    tries = (jpeg_bytes(picture, quality) for quality in (75, 80, 85, 88, 92, 95, 97))
    return next(again for again in tries if np.bitwise_count(code ^ perceptual_hash(again)) <= NEAR_HASH_DISTANCE)

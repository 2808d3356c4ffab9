"""clip-retrieval behind its one door; a small stand-in answers for it, of the same files and shapes."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from owl3.curate.embed import ClipConfig, Query, build_index, check_model, embed, index_distinct, search, similarities
from owl3.errors import ConfigError, InputError
from owl3.shards import ShardWriter, iter_samples

CONFIG = ClipConfig(model="hf_clip:somebody/some-clip")
COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}


class Colours:
    """A CLIP whose vectors are mean colours; it does what clip-retrieval's `inference` and `index` do to files."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(request["do"])
        if request["do"] == "encode":
            seen = [_colour_of(Path(path).read_bytes()) for path in request["images"]]
            return {"vectors": [list(COLOURS.get(text, (1, 1, 1))) for text in request["texts"]] + seen}
        if request["do"] == "neighbours":
            rows = np.load(request["vectors"]).astype(np.float32)
            alike = np.argwhere(np.triu(rows @ rows.T >= request["min_cosine"], 1))
            np.save(request["pairs"], alike)
        if request["do"] == "inference":
            self._inference(Path(request["input_dataset"]).parent, Path(request["output_folder"]))
        return {}

    def _inference(self, tars: Path, out: Path) -> None:
        for number, tar in enumerate(sorted(tars.glob("*.tar"))):
            samples = list(iter_samples(tar))
            vectors = {
                "img_emb": [_colour_of(members["jpg"]) for _, members in samples],
                "text_emb": [COLOURS[members["txt"].decode()] for _, members in samples],
            }
            for kind, rows in vectors.items():
                (out / kind).mkdir(parents=True, exist_ok=True)
                np.save(out / kind / f"{kind}_{number}.npy", np.array(rows, np.float32) * 3)  # not of unit length
            (out / "metadata").mkdir(exist_ok=True)
            table = pa.table(
                {"image_path": [key for key, _ in samples], "caption": [m["txt"].decode() for _, m in samples]}
            )
            pq.write_table(table, out / "metadata" / f"metadata_{number}.parquet")


def _colour_of(data: bytes) -> tuple[float, ...]:
    return tuple(value / 255 for value in Image.open(io.BytesIO(data)).convert("RGB").resize((1, 1)).getpixel((0, 0)))  # type: ignore[union-attr]


def picture(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), tuple(int(255 * value) for value in COLOURS[colour])).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def tars(tmp_path: Path) -> list[Path]:
    """Two shards; the sample named `wrong` shows blue under the caption red."""
    contents = {"00000": {"a": ("red", "red"), "wrong": ("blue", "red")}, "00001": {"c": ("green", "green")}}
    for shard, samples in contents.items():
        with ShardWriter(tmp_path / f"{shard}.tar") as tar:
            for key, (shown, said) in samples.items():
                tar.add(key, {"jpg": picture(shown), "txt": said.encode(), "json": b"{}"})
    return [tmp_path / f"{shard}.tar" for shard in contents]


def test_pictures_are_scored_against_their_captions(tars: list[Path], tmp_path: Path) -> None:
    embed(tars, tmp_path / "out", CONFIG, run=Colours())
    scores = similarities(tmp_path / "out", ["00000", "00001"])
    assert scores == pytest.approx({"a": 1.0, "wrong": 0.0, "c": 1.0}, abs=0.01)


def test_shards_that_are_done_are_not_done_again(tars: list[Path], tmp_path: Path) -> None:
    run = Colours()
    embed(tars[:1], tmp_path / "out", CONFIG, run=run)
    embed(tars, tmp_path / "out", CONFIG, run=run)
    embed(tars, tmp_path / "out", CONFIG, run=run)
    assert run.asked == ["inference", "inference"]
    assert len(similarities(tmp_path / "out", ["00000", "00001"])) == 3


def test_an_index_holds_what_was_kept_and_answers_texts_and_pictures(tars: list[Path], workspace: Path) -> None:
    run = Colours()
    embed(tars, workspace / "out", CONFIG, run=run)
    build_index(workspace / "out", ["00000", "00001"], {"a", "c"}, workspace / "indexes" / "colours", run=run)
    assert run.asked[-1] == "index"
    found = search(workspace, "colours", CONFIG.model, Query(text="green"), count=5, run=run)
    assert [row["image_path"] for row in found] == ["c", "a"] and found[0]["score"] == pytest.approx(1, abs=0.01)
    (workspace / "like.png").write_bytes(picture("red"))
    like = search(workspace, "colours", CONFIG.model, Query(image=workspace / "like.png"), count=1, run=run)
    assert [row["image_path"] for row in like] == ["a"]


def test_of_pictures_that_look_alike_the_smallest_id_is_kept(tars: list[Path], workspace: Path) -> None:
    with ShardWriter(workspace / "00002.tar") as tar:
        for key in ("0", "d"):
            tar.add(key, {"jpg": picture("green"), "txt": b"green", "json": b"{}"})
    run, names, folder = Colours(), ["00000", "00001", "00002"], workspace / "index"
    embed([*tars, workspace / "00002.tar"], workspace / "out", CONFIG, run=run)
    config = CONFIG.model_copy(update={"duplicates": 0.95})
    copies = index_distinct(workspace / "out", names, {"a", "c", "0", "d", "wrong"}, folder, config, run=run)
    assert copies == {"c": "0", "d": "0"}
    ids = pq.read_table(folder / "metadata" / "metadata_0.parquet").column("image_path").to_pylist()
    assert sorted(ids) == ["0", "a", "wrong"] and not (folder / "pairs.npy").exists()


def test_a_missing_model_is_told_before_any_work() -> None:
    run = Colours()
    for model in ("hf_clip:/no/such/model", "open_clip:ViT-B-32//no/such.pt"):
        with pytest.raises(ConfigError, match="no such path /no/such"):
            check_model(ClipConfig(model=model), run=run)
    assert run.asked == []
    check_model(CONFIG, run=run)
    assert run.asked == ["encode"]


def test_a_corpus_without_an_index_says_how_to_get_one(workspace: Path) -> None:
    with pytest.raises(InputError, match=r"clip\.index"):
        search(workspace, "colours", CONFIG.model, Query(text="red"), run=Colours())

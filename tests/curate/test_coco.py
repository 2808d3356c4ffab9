"""COCO's captions and instances together: what is known of objects decides, and blurs."""

import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate.hostile import hostile_server, picture
from owl3.curate.run import curate
from owl3.curate.sources.coco import read_coco
from owl3.curate.sources.prepare import SourceConfig, prepare
from owl3.curate.sources.urltables import iter_rows
from owl3.errors import InputError
from owl3.recipe import RECIPES, load_recipe
from owl3.shards import read_member

CATEGORIES = [
    {"supercategory": "person", "id": 1, "name": "person"},
    {"supercategory": "animal", "id": 18, "name": "dog"},
]


def write_coco(folder: Path, boxes: dict[str, list[tuple[int, list[float]]]], **sizes: tuple[int, int]) -> list[str]:
    """Captions and instances of pictures with (category, bbox in px) each; returns the two files' names."""
    images = [
        {"id": n, "file_name": f"{name}.jpg", "license": 4, "width": width, "height": height}
        for n, (name, (width, height)) in enumerate(sizes.items())
    ]
    numbers = {name: n for n, name in enumerate(sizes)}
    said = [{"id": n, "image_id": n, "caption": f"photo number {n} of a park"} for n in range(len(images))]
    found = [
        {"image_id": numbers[name], "category_id": category, "bbox": bbox, "iscrowd": 0, "segmentation": [[0.0] * 6]}
        for name, entries in boxes.items()
        for category, bbox in entries
    ]
    instances = [entry | {"id": n} for n, entry in enumerate(found)]
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": said}))
    objects = {"images": images, "annotations": instances, "categories": CATEGORIES}
    (folder / "instances.json").write_text(json.dumps(objects))
    return ["captions.json", "instances.json"]


def rows_of(workspace: Path, files: list[str], **settings: Any) -> list[dict[str, Any]]:
    """The prepared rows."""
    config = SourceConfig(name="s", layout="coco", base_url="http://coco.test/", files=tuple(files), **settings)
    prepare(config, workspace)
    return [row for table in iter_rows(workspace / "sources" / "s", 1000) for row in table.to_pylist()]


@pytest.mark.parametrize("order", [1, -1], ids=["captions first", "instances first"])
def test_a_row_carries_sizes_categories_and_boxes(workspace: Path, order: int) -> None:
    boxes = {"a": [(18, [0, 0, 50, 25]), (1, [50, 25, 40, 75]), (1, [90, 0, 20, 50])]}
    files = write_coco(workspace, boxes, a=(100, 100), b=(64, 48))
    first, second = rows_of(workspace, files[::order], blur_categories=("person",))
    assert (first["src_width"], first["src_height"], first["src_objects"]) == (100, 100, 3)
    assert first["src_categories"] == ["dog", "person"] and first["src_object_names"] == ["dog", "person", "person"]
    people = [[0.5, 0.25, 0.9, 1.0], [0.9, 0.0, 1.0, 0.5]]  # the last box reached out of the picture
    assert first["src_object_boxes"] == [[0.0, 0.0, 0.5, 0.25], *people]
    assert first["boxes"] == people
    assert first["src_largest_object"] == pytest.approx(0.3)
    assert (second["src_objects"], second["src_categories"], second["boxes"]) == (0, [], None)


@pytest.mark.parametrize(("given", "objects"), [(1, None), (2, 1)], ids=["captions alone", "with instances"])
def test_nothing_is_blurred_unasked_and_captions_alone_are_enough(
    workspace: Path, given: int, objects: int | None
) -> None:
    files = write_coco(workspace, {"a": [(1, [0, 0, 50, 25])]}, a=(100, 100))
    (row,) = rows_of(workspace, files[:given])
    assert (row["boxes"], row["src_width"], row.get("src_objects")) == (None, 100, objects)


@pytest.mark.parametrize(
    ("files", "blur", "why"),
    [
        (["captions.json", "instances.json"], "persn", "no category 'persn' in the files; did you mean 'person'"),
        (["captions.json"], "person", "no category 'person' in the files; give the instances json too"),
        (["instances.json"], "person", "boxes alone make no rows; give the captions json too"),
    ],
)
def test_what_is_missing_is_said_in_one_line(workspace: Path, files: list[str], blur: str, why: str) -> None:
    write_coco(workspace, {"a": [(1, [0, 0, 50, 25])]}, a=(100, 100))
    with pytest.raises(InputError, match=why):
        rows_of(workspace, files, blur_categories=(blur,))


def test_a_box_that_is_none_is_an_error_that_names_it(workspace: Path) -> None:
    files = write_coco(workspace, {"a": [(1, [0, 0, 50])]}, a=(100, 100))
    with pytest.raises(InputError, match=r"instances\.json: annotation 0: needs a bbox of four numbers"):
        rows_of(workspace, files)


@pytest.mark.shared
def test_real_captions_and_instances_are_joined(workspace: Path, shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("data") / "coco" / "annotations"
    files = [str(folder / f"{kind}_val2017.json") for kind in ("captions", "instances")]
    rows = rows_of(workspace, files, blur_categories=("person",))
    assert len(rows) == 50 and sum(row["src_objects"] for row in rows) == 382
    kitchen = next(row for row in rows if row["src_image_id"] == 397133)
    assert "bottle" in kitchen["src_categories"] and (kitchen["src_width"], kitchen["src_height"]) == (640, 427)
    assert all(0 <= part <= 1 for row in rows for box in row["src_object_boxes"] for part in box)
    assert all(bool(row["boxes"]) == ("person" in row["src_categories"]) for row in rows)


@pytest.mark.processes
def test_rules_on_objects_decide_and_people_are_blurred_from_json_to_shards(workspace: Path) -> None:
    boxes = {"one": [(1, [0, 0, 128, 208])], "dog": [(18, [0, 0, 9, 9]), (1, [0, 0, 9, 9])]}
    sizes = {"one": (256, 208), "dog": (256, 208), "thin": (30, 208)}
    files = [str(workspace / name) for name in write_coco(workspace, boxes, **sizes)]
    scores = "[{column: width, min: 99, reason: image_too_small}]"
    rules = f"{{scores: {scores}, words: [{{column: categories, none_of: [dog]}}]}}"
    with hostile_server() as web:
        for number, name in enumerate(sizes):
            web.page(f"/coco/{name}.jpg", picture(number, (256, 208)))
        given = [
            f"sources.coco-captions.files=[{','.join(files)}]",
            "sources.coco-captions.base_url=http://files.test/coco/",
            "sources.coco-captions.blur_categories=[person]",
            f"curate.coco-captions.rows={rules}",
        ]
        made = load_recipe(RECIPES / "corpora" / "coco-captions.yaml", given)
        prepare(made.sources[0], workspace)
        shards = curate(made.curate[0], workspace, resolve={"files.test": f"127.0.0.1:{web.port}"})
    assert shards.counts.dropped == {"content_not_allowed": 1, "image_too_small": 1}
    folder = workspace / "shards" / "coco-captions"
    (row,) = pq.read_table(folder / "00000.parquet", filters=[("decision", "=", "kept")]).to_pylist()
    assert row["src_categories"] == ["person"]
    stored = read_member(folder / "00000.tar", row["media_offset"], row["media_bytes"])
    before, after = (Image.open(io.BytesIO(data)).convert("L") for data in (picture(0, (256, 208)), stored))
    change = [
        max(abs(a - b) for a, b in zip(before.crop(box).tobytes(), after.crop(box).tobytes(), strict=True))
        for box in ((16, 16, 112, 192), (160, 16, 240, 192))
    ]
    assert change[0] > 4 * change[1]  # the half with the person, and the other


def test_polygons_are_read_past_not_kept(tmp_path: Path) -> None:
    files = [tmp_path / name for name in write_coco(tmp_path, {"a": [(1, [0, 0, 50, 25])] * 100}, a=(100, 100))]
    instances = json.loads(files[1].read_text())
    for annotation in instances["annotations"]:
        annotation["segmentation"] = [[0.5] * 5000]
    files[1].write_text(json.dumps(instances))
    tracemalloc.start()
    (row,) = read_coco(files, "http://coco.test/", "first")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert row["src_objects"] == 100
    assert peak_bytes < files[1].stat().st_size / 2


def test_a_file_that_ends_in_the_middle_is_named(tmp_path: Path) -> None:
    captions, _ = (tmp_path / name for name in write_coco(tmp_path, {}, a=(100, 100)))
    captions.write_text(captions.read_text()[:-20])
    with pytest.raises(InputError, match=r"captions\.json: can't be read as JSON"):
        list(read_coco([captions], "http://coco.test/", "first"))

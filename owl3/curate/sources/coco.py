"""COCO: a folder of photos, sentences that people wrote about them, and boxes around objects of 80 categories.

`captions_val2017.json`, whose pictures become rows:

    {"images": [{"id": 397133, "file_name": "000000397133.jpg", "license": 4, "width": 640, "height": 427, …}],
     "annotations": [{"image_id": 397133, "id": 370509, "caption": "A man is in a kitchen making pizzas."}],
     "licenses": [{"id": 4, "name": "Attribution License", "url": "http://creativecommons.org/licenses/by/2.0/"}]}

`instances_val2017.json`, which says more of the same pictures; `bbox` is left, top, width, height in px:

    {"images": […], "categories": [{"id": 44, "name": "bottle", "supercategory": "kitchen"}, …],
     "annotations": [{"image_id": 397133, "id": 82445, "category_id": 44, "iscrowd": 0, "area": 1481.38,
                      "bbox": [217.62, 240.54, 38.99, 57.75], "segmentation": [[224.24, 297.18, …]]}]}

Columns of a row, for a recipe's rules: `width` and `height` as the json has them; with instances `objects` (how many
boxes), `categories` (each once, by name), `object_names` and `object_boxes` (side by side; left, top, right, bottom as
parts of width and height) and `largest_object` (area of the largest box as a part of the picture's).
"""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from owl3.errors import InputError

Box = list[float]
"""Left, top, right, bottom as parts of width and height."""

_LICENCES = {
    1: "CC-BY-NC-SA-2.0",
    2: "CC-BY-NC-2.0",
    3: "CC-BY-NC-ND-2.0",
    4: "CC-BY-2.0",
    5: "CC-BY-SA-2.0",
    6: "CC-BY-ND-2.0",
    7: "no known copyright restrictions",
    8: "United States Government Work",
}
"""COCO's licence ids, spelt as SPDX names where there is one."""


def read_coco(
    files: Sequence[Path], base_url: str, captions: Literal["first", "each"], blur: Sequence[str] = ()
) -> Iterator[Mapping[str, Any]]:
    """Rows of COCO captions files, pictures in the order of the file, captions in that of their ids.

    Args:
        files: Captions, and instances where there are some, in any order.
        base_url: Where the photos are served.
        captions: One row per picture, or one per caption.
        blur: Categories whose boxes are to be blurred.

    Raises:
        InputError: a file is of another layout, there are no captions, or nothing is known of a category to blur.
    """
    described, objects = [], _Objects()
    for path in files:
        data = _load(path)
        if "categories" in data:
            objects.add(path, data)
        else:
            described.append(data)
    if not described:
        raise InputError(f"{', '.join(map(str, files))}: boxes alone make no rows; give the captions json too")
    objects.check_known(blur)
    for data in described:
        by_image: dict[Any, list[Mapping[str, Any]]] = {}
        for annotation in sorted(data["annotations"], key=lambda entry: entry["id"]):
            by_image.setdefault(annotation["image_id"], []).append(annotation)
        for image in data["images"]:
            found = by_image.get(image["id"], [])
            shown = objects.columns(image["id"], blur)
            for annotation in (found if captions == "each" else found[:1]) or [{}]:
                yield {
                    "url": base_url + quote(str(image["file_name"])),
                    "caption": annotation.get("caption"),
                    "licence": _LICENCES.get(image.get("license"), ""),
                    "src_image_id": image["id"],
                    "src_caption_id": annotation.get("id"),
                    "src_original_url": image.get("flickr_url") or image.get("coco_url"),
                    "src_width": image.get("width"),
                    "src_height": image.get("height"),
                    **shown,
                }


@dataclass
class _Objects:
    """What instances files say of pictures: names and boxes of objects, by the picture's id."""

    names: set[str] = field(default_factory=set)
    of_image: dict[Any, list[tuple[str, Box]]] = field(default_factory=dict)

    def add(self, path: Path, data: Mapping[str, Any]) -> None:
        """Take in one file."""
        names = {category["id"]: str(category["name"]) for category in data["categories"]}
        self.names |= set(names.values())
        sizes = {image["id"]: (image["width"], image["height"]) for image in data["images"]}
        self.of_image |= {number: [] for number in sizes}
        for annotation in sorted(data["annotations"], key=lambda entry: entry["id"]):
            try:
                left, top, width, height = annotation["bbox"]
                wide, high = sizes[annotation["image_id"]]
                name = names[annotation["category_id"]]
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(
                    f"{path}: annotation {annotation.get('id')}: needs a bbox of four numbers, and the ids of a "
                    f"picture and a category of the file ({error})"
                ) from error
            box = [left / wide, top / high, (left + width) / wide, (top + height) / high]
            self.of_image[annotation["image_id"]].append((name, [min(1.0, max(0.0, part)) for part in box]))

    def check_known(self, categories: Sequence[str]) -> None:
        """Make sure that all these are categories of the files."""
        for name in categories:
            if name not in self.names:
                near = difflib.get_close_matches(name, self.names, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else "" if self.names else "; give the instances json too"
                raise InputError(f"blur_categories: no category {name!r} in the files{hint}")

    def columns(self, image: Any, blur: Sequence[str]) -> dict[str, Any]:
        """Columns of a row; none without instances, empty ones for a picture that they do not list."""
        if not self.names:
            return {}
        found = self.of_image.get(image)
        if found is None:
            absent = ("objects", "categories", "object_names", "object_boxes", "largest_object")
            return {f"src_{name}": None for name in absent}
        boxes = [box for _, box in found]
        return {
            "boxes": [box for name, box in found if name in blur],
            "src_objects": len(found),
            "src_categories": sorted({name for name, _ in found}),
            "src_object_names": [name for name, _ in found],
            "src_object_boxes": boxes,
            "src_largest_object": max(map(_area, boxes), default=0.0),
        }


def _area(box: Box) -> float:
    left, top, right, bottom = box
    return (right - left) * (bottom - top)


def _load(path: Path) -> Mapping[str, Any]:
    """The file without its polygons: they are most of it, and would fill the memory of a small machine."""
    try:
        with path.open(encoding="utf-8") as handle:
            data = json.load(handle, object_pairs_hook=lambda pairs: {k: v for k, v in pairs if k != "segmentation"})
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't be read as JSON: {str(error)[:200]}") from error
    if not isinstance(data, dict) or "images" not in data or "annotations" not in data:
        raise InputError(f"{path}: not in COCO layout; it must hold `images` and `annotations`")
    return data

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

The instances of train2017 are 450 MB of JSON, most of it polygons. Files are streamed, one entry of a list at a time;
what is kept in memory is boxes and captions.
"""

import difflib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import ijson

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
        categories = list(_entries(path, "categories"))
        if categories:
            objects.add(path, categories)
        else:
            described.append(path)
    if not described:
        raise InputError(f"{', '.join(map(str, files))}: boxes alone make no rows; give the captions json too")
    objects.check_known(blur)
    for path in described:
        sentences = _sentences(path)
        for image in _entries(path, "images", needed=True):
            found = sentences.get(image["id"], [])
            shown = objects.columns(image["id"], blur)
            for number, caption in (found if captions == "each" else found[:1]) or [(None, None)]:
                yield {
                    "url": base_url + quote(str(image["file_name"])),
                    "caption": caption,
                    "licence": _LICENCES.get(image.get("license"), ""),
                    "src_image_id": image["id"],
                    "src_caption_id": number,
                    "src_original_url": image.get("flickr_url") or image.get("coco_url"),
                    "src_width": image.get("width"),
                    "src_height": image.get("height"),
                    **shown,
                }


def _sentences(path: Path) -> dict[Any, list[tuple[Any, Any]]]:
    """Id and caption of each annotation, in the order of ids, by the picture's id."""
    by_image: dict[Any, list[tuple[Any, Any]]] = {}
    for annotation in _entries(path, "annotations", needed=True):
        by_image.setdefault(annotation["image_id"], []).append((annotation["id"], annotation.get("caption")))
    for found in by_image.values():
        found.sort(key=lambda entry: entry[0])
    return by_image


@dataclass
class _Objects:
    """What instances files say of pictures: names and boxes of objects, by the picture's id."""

    names: set[str] = field(default_factory=set)
    of_image: "dict[Any, list[tuple[Any, str, array[float]]]]" = field(default_factory=dict)
    """Annotation's id, category, and box, by the picture's id."""

    def add(self, path: Path, categories: Sequence[Mapping[str, Any]]) -> None:
        """Take in one file."""
        names = {category["id"]: str(category["name"]) for category in categories}
        self.names |= set(names.values())
        sizes = {image["id"]: (image["width"], image["height"]) for image in _entries(path, "images", needed=True)}
        self.of_image |= {number: [] for number in sizes}
        for annotation in _entries(path, "annotations", needed=True):
            try:
                left, top, width, height = annotation["bbox"]
                wide, high = sizes[annotation["image_id"]]
                name = names[annotation["category_id"]]
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(
                    f"{path}: annotation {annotation.get('id')}: needs a bbox of four numbers, and the ids of a "
                    f"picture and a category of the file ({error})"
                ) from error
            box = array("d", (left / wide, top / high, (left + width) / wide, (top + height) / high))
            self.of_image[annotation["image_id"]].append((annotation["id"], name, box))

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
        listed = self.of_image.get(image)
        if listed is None:
            absent = ("objects", "categories", "object_names", "object_boxes", "largest_object")
            return {f"src_{name}": None for name in absent}
        in_order = sorted(listed, key=lambda entry: entry[0])
        found = [(name, [min(1.0, max(0.0, part)) for part in box]) for _, name, box in in_order]
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


def _entries(path: Path, name: str, needed: bool = False) -> Iterator[Any]:
    """The entries of one of a file's lists, one at a time.

    Raises:
        InputError: the file is no JSON, or the list is missing or empty though it is needed.
    """
    count = 0
    try:
        with path.open("rb") as handle:
            for entry in ijson.items(handle, f"{name}.item", use_float=True):
                count += 1
                yield entry
    except (OSError, ijson.JSONError, UnicodeError) as error:
        raise InputError(f"{path}: can't be read as JSON: {str(error)[:200]}") from error
    if needed and not count:
        raise InputError(f"{path}: not in COCO layout; it must hold `images` and `annotations`")

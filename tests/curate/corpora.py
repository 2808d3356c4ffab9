"""Every corpus of the catalogue in small: good, dirty and unwanted rows in its own columns, on a faulty server."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from test_media import clip

from curate.hostile import Hostile, picture
from owl3.curate.sources.corpus import find_corpus

HOST = "files.test"


class Item(NamedTuple):
    """One row: where its medium lies on the server, without extension; a caption; what the other columns say."""

    name: str
    caption: str
    columns: Mapping[str, Any]


Write = Callable[[Sequence[Item]], Any]
"""Rows to the content of a file."""


class Table(NamedTuple):
    """How a corpus writes its rows, and what its recipe thinks of them."""

    file: str
    write: Write
    columns: Mapping[str, Any] = {}
    """Further columns of a good row."""
    unwanted: Sequence[tuple[str, Mapping[str, Any]]] = ()
    """Rows that the recipe's own rules drop: the reason, and the columns (or the caption) that make it so."""
    drops_small: bool = False
    """Does the recipe ask for a side of 200 px?"""
    extension: str = ".jpg"
    chinese: bool = False
    cannot: Sequence[str] = ()
    """Faults that this form of table can't have."""


def _url(item: Item, extension: str) -> str:
    return f"http://{HOST}/{item.name}{extension}" if item.name else "not a URL"


def _records(url: str, caption: str) -> Write:
    return lambda items: [{url: _url(item, ".jpg"), caption: item.caption} | item.columns for item in items]


def _lines(form: str, extension: str = ".jpg") -> Write:
    def write(items: Sequence[Item]) -> str:
        return "".join(form.format(url=_url(item, extension), caption=item.caption) + "\n" for item in items)

    return write


def _named(key: str, texts: Callable[[str], dict[str, Any]], extension: str = "") -> Write:
    """Rows that name files of a folder."""
    return lambda items: [
        {key: item.name and item.name.partition("/")[2] + extension} | texts(item.caption) for item in items
    ]


def _turns(caption: str) -> dict[str, Any]:
    asked, said = {"from": "human", "value": "<image>\nDescribe."}, {"from": "gpt", "value": caption}
    return {"id": "1", "conversations": [asked, said]}


def _coco(items: Sequence[Item]) -> dict[str, Any]:
    images = _named("file_name", lambda _: {"license": 4}, ".jpg")(items)
    notes = [{"id": n, "image_id": n, "caption": item.caption} for n, item in enumerate(items) if item.caption]
    return {"images": [image | {"id": n} for n, image in enumerate(images)], "annotations": notes}


LAION = {"similarity": 0.33, "punsafe": 0.01, "pwatermark": 0.1}
LAION_UNWANTED = [
    ("low_clip_similarity", {"similarity": 0.1}),
    ("unsafe", {"punsafe": 0.9}),
    ("watermark", {"pwatermark": 0.9}),
]
COYO = {"id": 7, "nsfw_score_opennsfw2": 0.001, "watermark_score": 0.1, "aesthetic_score_laion_v2": 6.0}
COYO_UNWANTED = [("unsafe", {"nsfw_score_opennsfw2": 0.9}), ("watermark", {"watermark_score": 0.9})]
DATACOMP = {"uid": "0" * 32, "clip_l14_similarity_score": 0.27, "face_bboxes": [[0.1, 0.2, 0.3, 0.4]], "sha256": None}
SHORT = ("caption_too_short", {"caption": "dog"})
VATEX = _named("videoID", lambda text: {"enCap": [text, "he"], "chCap": [text, "他"]})
LLAVA = _named("image", _turns, ".jpg")

TABLES: dict[str, Table] = {
    "laion-en": Table("a.parquet", _records("URL", "TEXT"), LAION, [*LAION_UNWANTED, SHORT], True),
    "laion-zh": Table(
        "a.parquet",
        _records("URL", "TEXT"),
        LAION | {"LANGUAGE": "zh"},
        [*LAION_UNWANTED, ("caption_language", {"LANGUAGE": "ja"})],
        True,
        chinese=True,
    ),
    "coyo-700m": Table("a.parquet", _records("url", "text"), COYO, [*COYO_UNWANTED, SHORT], True),
    "coyo-ocr": Table("a.parquet", _records("url", "text"), COYO | {"ocr_text": "STOP"}, COYO_UNWANTED, True),
    "datacomp-1b": Table("a.parquet", _records("url", "text"), DATACOMP, [("hash_mismatch", {"sha256": "ab" * 32})]),
    "cc3m": Table("a.tsv", _lines("{caption}\t{url}"), drops_small=True),
    "cc12m": Table("a.tsv", _lines("{url}\t{caption}"), drops_small=True),
    "wukong": Table(
        "a.csv", lambda items: "url,caption\n" + _lines("{url},{caption}")(items), drops_small=True, chinese=True
    ),
    "sbu": Table(
        "a.json",
        lambda items: {
            "image_urls": [_url(item, ".jpg") for item in items],
            "captions": [item.caption for item in items],
        },
        drops_small=True,
    ),
    "coco-captions": Table("a.json", _coco, cannot=["bad_url"]),
    "llava-pretrain": Table("a.json", LLAVA),
    "llava-recap-558k": Table("a.json", LLAVA),
    "sharegptvideo": Table("a.jsonl", _named("video", _turns), extension=".mp4"),
    "vatex-en": Table("a.json", VATEX, extension=".mp4"),
    "vatex-zh": Table("a.json", VATEX, extension=".mp4", chinese=True),
    "msrvtt": Table(
        "a.json",
        lambda items: {"videos": [], "sentences": _named("video_id", lambda text: {"caption": text})(items)},
        extension=".mp4",
    ),
    "msvd": Table(  # a clip that is named again brings a further sentence, which is no row of its own
        "a.txt",
        lambda items: "# comment\n" + "".join(f"{i.name.partition('/')[2]} {i.caption}\n" for i in items),
        extension=".avi",
        cannot=["bad_url", "duplicate_row"],
    ),
    "webvid": Table(
        "a.csv", lambda items: "name,contentUrl\n" + _lines("{caption},{url}", ".mp4")(items), extension=".mp4"
    ),
    "local-clips": Table("a.jsonl", _named("file", lambda text: {"caption": text}, ".mp4"), extension=".mp4"),
}


class World(NamedTuple):
    """A corpus's table as a file, and what must become of its rows."""

    file: Path
    prepared: dict[str, int]
    """Rows dropped by `prepare`, by reason."""
    curated: dict[str, int]
    """Rows dropped by `curate`, by reason."""
    kept: int


GOOD = 3
FAULTS = {"missing": "not_found", "broken": "server_error", "noai": "opt_out_header", "copy": "duplicate_exact"}


def build(name: str, folder: Path, web: Hostile) -> World:
    """Write a corpus's table into `folder` and put its media on the server, below /NAME/."""
    table, is_video = TABLES[name], find_corpus(name).media == "video"
    media = _clips(folder, table.extension) if is_video else _pictures()
    for stem, body in media.items():
        headers = {"X_Robots_Tag": "noai"} if stem == "noai" else {}
        web.page(f"/{name}/{stem}{table.extension}", body, 500 if stem == "broken" else 200, **headers)
    faults = FAULTS | {"page": "not_a_video" if is_video else "not_an_image"}
    if is_video:
        faults |= {"small": "clip_too_short"}
    elif table.drops_small:
        faults |= {"small": "image_too_small"}
    texts = (f"第{n}只狗在草地上" if table.chinese else f"dog number {n} in a field" for n in range(100))
    captions = {stem: next(texts) for stem in [*media, "missing"]}
    captions["copy"] = captions["good-0"]  # some recipes keep a picture under several captions
    items = [Item(f"{name}/{stem}", caption, table.columns) for stem, caption in captions.items()]
    items += [
        Item(f"{name}/good-1", columns.pop("caption", next(texts)), table.columns | columns)
        for columns in (dict(columns) for _, columns in table.unwanted)
    ]
    dirty = {
        "duplicate_row": items[0],
        "missing_caption": Item(f"{name}/lost", "", table.columns),
        "bad_url": Item("", next(texts), table.columns),
    }
    dirty = {reason: item for reason, item in dirty.items() if reason not in table.cannot}
    write(folder / table.file, table.write([*items, *dirty.values()]))
    curated = [*faults.values(), *(reason for reason, _ in table.unwanted)]
    kept = len(items) - len(curated)
    return World(folder / table.file, dict.fromkeys(dirty, 1), dict.fromkeys(curated, 1), kept)


def _pictures() -> dict[str, bytes]:
    size = (256, 208)
    good = {f"good-{number}": picture(number, size) for number in range(GOOD)}
    return good | {"copy": good["good-0"], **_broken(picture(50, size)), "small": picture(51, (96, 80))}


def _clips(folder: Path, extension: str) -> dict[str, bytes]:
    def short(frames: int) -> bytes:
        return clip(folder / f"clip{extension}", frames=frames).read_bytes()

    good = {f"good-{number}": short(16 + number) for number in range(GOOD)}
    return good | {"copy": good["good-0"], **_broken(good["good-1"]), "small": short(4)}


def _broken(body: bytes) -> dict[str, bytes]:
    return {"noai": body, "broken": b"", "page": b"<html>moved</html>"}


def write(path: Path, content: Any) -> None:
    """Write a table in the form that its name asks for."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(content), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))

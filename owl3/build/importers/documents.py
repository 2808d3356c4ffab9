"""Interleaved web pages: MMC4, OBELICS and MINT-1T. All text is trained; pictures stand where the page had them."""

import json
from typing import Any

from owl3.build.drafts import Refused, clean
from owl3.build.importers.record import MediaName, Record, RecordPart, dict_of, list_of, text_of


def mmc4(row: dict[str, Any]) -> Record:
    """MMC4: sentences, and for each picture the sentence that it stands before.

    The document that MMC4's README prints, shortened (two of its three sentences, three of its fields per picture):

        {"image_info": [{"image_name": "b9040a0dbb22.jpg", "matched_text_index": 2, "raw_url": "http://…/index.90.jpg"},
                        {"image_name": "db1c21bc8474.jpg", "matched_text_index": 1, "raw_url": "http://…/index.91.jpg"}],
         "text_list": ["When you lock the door using the lock tab on the driver's door, all of the other doors …", …],
         "url": "http://www.hfitinfo.com/hofi-48.html", "could_have_url_duplicate": 0}

    Pictures of one sentence keep the order of `image_info`. They are looked up by `raw_url`, then by `image_name`.
    """
    sentences = list_of(row, "text_list")
    before: dict[int, list[MediaName]] = {}
    for entry in list_of(row, "image_info"):
        info = dict_of(entry, "image_info")
        place = info.get("matched_text_index")
        if not isinstance(place, int) or not 0 <= place < len(sentences):
            raise Refused("media_mismatch", f"picture {info.get('image_name')!r} stands before sentence {place!r}")
        name, other = str(info.get("raw_url") or ""), str(info.get("image_name") or "")
        before.setdefault(place, []).append(MediaName(name or other, other=other))
    parts: list[RecordPart] = []
    for index, sentence in enumerate(sentences):
        parts += before.get(index, [])
        parts.append(str(sentence))
    return document(parts, {"page": str(row.get("url") or "")})


def obelics(row: dict[str, Any]) -> Record:
    """OBELICS, and MINT-1T's HTML part: parallel lists, in each place either a picture or a text.

    The example of OBELICS' dataset card, shortened (its texts and all but two fields of `metadata` are left out):

        {"images": ["https://cdn.motor1.com/images/mgl/oRKO0/s1/lamborghini-urus-original-carbon-fiber-accessories.jpg",
                    None],
         "metadata": "[{\\"document_url\\": \\"https://lamborghinichat.com/forum/news/vw-group-…\\", …}, null]",
         "general_metadata": "{\\"url\\": …}", "texts": [None, "…"]}
    """
    images, texts = list_of(row, "images"), list_of(row, "texts")
    if len(images) != len(texts):
        raise Refused("media_mismatch", f"{len(images)} places for pictures, {len(texts)} for texts")
    parts: list[RecordPart] = []
    for place, (image, text) in enumerate(zip(images, texts, strict=True)):
        if image is not None and text is not None:
            raise Refused("media_mismatch", f"place {place} holds both a picture and a text")
        if image is not None:
            parts.append(MediaName(str(image)))
        elif text is not None:
            parts.append(str(text))
    return document(parts, {"page": _page_of(row)})


def mint(row: dict[str, Any]) -> Record:
    """MINT-1T: as OBELICS; pictures of its PDF part have names instead of URLs.

    First row of MINT-1T-PDF-CC-2023-23, as its viewer shows it (cut off there after `language_id_who…`):

        {"bff_contained_ngram_count_before_dedupe": 29,
         "image_metadata": [{"height": 1234, "page": 0, "sha256": "036f6a8a…", "width": 3111, "xref": 85}],
         "images": ["page_0_image_85", None], "texts": [None, "…"], …}

    Such names are looked for below `media_root`, with the usual extensions.
    """
    return obelics(row)


def document(parts: list[RecordPart], meta: dict[str, Any]) -> Record:
    """A document of cleaned parts, a line break after each text that is followed by something.

    Raises:
        Refused: `empty_text` when there is no text.
    """
    kept: list[RecordPart] = []
    for part in parts:
        text = clean(part).strip() if isinstance(part, str) else None
        if text != "":
            kept.append(part if text is None else text)
    if not any(isinstance(part, str) for part in kept):
        raise Refused("empty_text", "the page holds no text")
    joined = [
        f"{part}\n" if isinstance(part, str) and index < len(kept) - 1 else part for index, part in enumerate(kept)
    ]
    return Record(document=joined, meta={key: value for key, value in meta.items() if value})


def _page_of(row: dict[str, Any]) -> str:
    """The page's address, where a row tells it."""
    if isinstance(row.get("url"), str):
        return text_of(row, "url")
    general = row.get("general_metadata")
    if isinstance(general, str):
        try:
            general = json.loads(general)
        except json.JSONDecodeError:
            return ""  # only a name for people: the page's text does not depend on it
    return str(general.get("url") or "") if isinstance(general, dict) else ""

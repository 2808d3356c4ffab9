"""Corpora that come as a folder of media with one file of text: as rows for a URL table.

Their media are served over local HTTP and fetched like any corpus, so they get the same checks, hashes and ledger.

LLaVA-pretrain (`blip_laion_cc_sbu_558k.json`):

    [{"id": "004539375", "image": "00453/004539375.jpg", "conversations": [
        {"from": "human", "value": "Render a clear and concise summary of the photo.\\n<image>"},
        {"from": "gpt", "value": "select luxury furniture 3 - inch gel memory foam mattress topper"}]}]

MSVD (`AllVideoDescriptions.txt`): clip id (YouTube id, start and end in seconds), a space, one caption:

    mv89psg6zh4_33_46 a bird in the sink keeps getting under the running water from a faucet
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from owl3.errors import InputError


def read_llava(files: Sequence[Path], base_url: str) -> Iterator[Mapping[str, Any]]:
    """Rows of LLaVA-pretrain files: the caption is the first answer."""
    for path in files:
        data = _load(path)
        if not isinstance(data, list):
            raise InputError(f"{path}: not in LLaVA layout; it must hold a list of conversations")
        for row in data:
            answers = [turn.get("value") for turn in row.get("conversations", ()) if turn.get("from") == "gpt"]
            image = row.get("image")
            yield {
                "url": base_url + quote(image) if isinstance(image, str) and image else None,
                "caption": answers[0] if answers else row.get("blip_caption"),
                "src_id": str(row.get("id", "")),
            }


def read_msvd(files: Sequence[Path], base_url: str, captions: Literal["first", "each"]) -> Iterator[Mapping[str, Any]]:
    """Rows of MSVD's text file; clips are served as ID_START_END.avi."""
    for path in files:
        seen: set[str] = set()
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, caption = line.strip().partition(" ")
            if not name or name.startswith("#") or (captions == "first" and name in seen):
                continue
            seen.add(name)
            yield {"url": f"{base_url}{quote(name)}.avi", "caption": caption, "src_clip_id": name}


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't be read as JSON: {str(error)[:200]}") from error

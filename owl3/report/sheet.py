"""One picture of many: a sheet of thumbnails of what a set kept, for places that show an image and no page."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from owl3.cards.pictures import small_medium
from owl3.cards.tables import records
from owl3.ledger import connect
from owl3.media import MediaError
from owl3.shards import read_member

COLUMNS, ROWS, SIDE_PX = 8, 3, 96


def contact_sheet(workspace: Path, name: str) -> bytes | None:
    """A JPEG of up to 24 kept pictures of `shards/NAME`, always the same choice; None when it kept none."""
    with connect(workspace) as db:
        rows = records(
            db,
            "select shard, extension, media_offset, media_bytes from shard_rows "
            f"where artifact = ? and decision = 'kept' order by md5(sample_id) limit {COLUMNS * ROWS}",
            [name],
        )
    if not rows:
        return None
    lines = -(-len(rows) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * SIDE_PX, lines * SIDE_PX), "white")
    for number, row in enumerate(rows):
        tar = workspace / "shards" / name / f"{row['shard']}.tar"
        try:
            small = small_medium(read_member(tar, row["media_offset"], row["media_bytes"]), row["extension"], SIDE_PX)
        except MediaError:
            continue  # its place stays white: what does not decode here is the audit's business
        line, column = divmod(number, COLUMNS)
        sheet.paste(Image.open(io.BytesIO(small)), (column * SIDE_PX, line * SIDE_PX))
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=80)
    return out.getvalue()

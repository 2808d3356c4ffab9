"""`owl3 inspect SAMPLES`: a few samples as a person reads them, in the terminal or on a contact sheet.

show_samples(Path("workspace/samples/pairs"), workspace, random=9, sheet=Path("pairs.png"))
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from owl3.build.drafts import Medium, Place
from owl3.build.draw import Permutation, key_of
from owl3.build.media_reader import Gone, MediaReader
from owl3.errors import InputError
from owl3.samples import Sample
from owl3.shards import read_member
from owl3.storage import write_atomic


@dataclass(frozen=True)
class Shown:
    """A sample, its row of the index, and its media's bytes (None for one that is gone)."""

    sample: Sample
    row: dict[str, Any]
    media: tuple[bytes | None, ...]

    @property
    def what(self) -> str:
        """What it is and what it costs, on one line."""
        row = self.row
        images = f"{row['images']} image{'' if row['images'] == 1 else 's'}"
        cost = f"{row['text_tokens']} tokens ({row['trained_tokens']} trained), {images}"
        return f"{self.sample.kind}  {self.sample.builder} {self.sample.builder_version}  {cost}"

    @property
    def origin(self) -> str:
        """Where it comes from."""
        return f"{self.sample.source} · {self.sample.licence} · seed {self.sample.seed}"


def show_samples(
    folder: Path,
    workspace: Path,
    *,
    keys: Sequence[str] = (),
    random: int = 9,
    seed: int = 0,
    sheet: Path | None = None,
) -> list[Shown]:
    """Find samples by key (or its first digits), or an even choice of some, and write their contact sheet.

    Args:
        folder: `samples/NAME`.
        workspace: What the paths of the index are relative to.
        keys: Which samples; empty: `random` of them.
        seed: Another number, another choice.
        sheet: Write a contact sheet there: PNG or HTML, by its extension.

    Raises:
        InputError: when a key is not there, the folder holds no samples, or the sheet is of another type.
    """
    if sheet is not None and sheet.suffix not in (".png", ".html"):
        raise InputError(f"{sheet}: a contact sheet is a .png or a .html")
    rows = find_rows(folder, keys) if keys else choose_rows(folder, random, seed)
    with MediaReader(workspace) as reader:
        shown = [_load(folder, row, reader) for row in rows]
    if sheet is not None:
        from owl3.build.sheets import html_sheet, png_sheet

        name = f"{folder.name}: {len(shown)} samples"
        data = png_sheet(shown) if sheet.suffix == ".png" else html_sheet(name, shown).encode()
        write_atomic(sheet, data)
    return shown


def find_rows(folder: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    """The index rows of some samples, in the order asked for.

    Raises:
        InputError: for a key that no kept sample begins with.
    """
    found: dict[str, dict[str, Any]] = {}
    for index in _indexes(folder):
        names = pq.read_table(index, columns=["sample_id"])["sample_id"].to_pylist()
        wanted = [key for key in keys if any(name.startswith(key) for name in names)]
        if not wanted:
            continue
        for row in pq.read_table(index).to_pylist():
            key = next((key for key in wanted if row["sample_id"].startswith(key)), None)
            if key is not None and row["decision"] == "kept":
                found.setdefault(key, row)
    missing = next((key for key in keys if key not in found), None)
    if missing is not None:
        raise InputError(f"{folder}: keeps no sample {missing}; owl3 trace finds ids")
    return [found[key] for key in keys]


def choose_rows(folder: Path, count: int, seed: int) -> list[dict[str, Any]]:
    """An even choice of kept samples, in the order of the set."""
    indexes = _indexes(folder)
    kept = [pq.read_table(index, columns=["decision"])["decision"].to_pylist().count("kept") for index in indexes]
    total = sum(kept)
    if total == 0:
        raise InputError(f"{folder}: keeps no samples")
    places = np.arange(min(count, total))
    chosen = set(Permutation(total, key_of("inspect", seed))(places).tolist())
    rows: list[dict[str, Any]] = []
    first = 0
    for index, number in zip(indexes, kept, strict=True):
        here = {place - first for place in chosen if first <= place < first + number}
        first += number
        if here:
            table = [row for row in pq.read_table(index).to_pylist() if row["decision"] == "kept"]
            rows += [table[place] for place in sorted(here)]
    return rows


def as_text(shown: Shown) -> str:
    """A sample for the terminal: media as ‹image 2: 640 x 480›, one paragraph per turn."""
    sample = shown.sample
    spans = [(str(turn.role), turn.start, turn.end) for turn in sample.turns] or [("document", 0, len(sample.segments))]
    lines = [f"{sample.id}  {shown.what}", shown.origin]
    for role, start, end in spans:
        said = "".join(_segment_text(shown, number) for number in range(start, end))
        lines.append(f"{role}: {said}")
    return "\n".join(lines)


def _segment_text(shown: Shown, number: int) -> str:
    segment = shown.sample.segments[number]
    if segment.text is not None:
        return segment.text
    medium = segment.medium
    assert medium is not None
    facts = shown.row["media"][medium]
    size = f"{facts['width']} x {facts['height']}"
    what = f"frame {medium} at {segment.time_s:g} s" if segment.time_s is not None else f"image {medium}"
    return f"‹{what}: {size}›"


def _load(folder: Path, row: dict[str, Any], reader: MediaReader) -> Shown:
    data = read_member(folder / f"{row['shard']}.tar", row["json_offset"], row["json_bytes"])
    media: list[bytes | None] = []
    for entry in row["media"]:
        try:
            media.append(reader.read(Medium(place=Place(entry["path"], entry["offset"], entry["bytes"]))))
        except Gone:
            media.append(None)  # shown as missing: a person wants to see the rest
    return Shown(Sample.model_validate_json(data), row, tuple(media))


def _indexes(folder: Path) -> list[Path]:
    found = sorted(folder.glob("[0-9][0-9][0-9][0-9][0-9].parquet"))
    if not found:
        raise InputError(f"{folder}: holds no sample index (00000.parquet); give a folder of samples/")
    return found

"""What a step held, for people: samples with their text, pictures and URLs, as rows of a table or as a page."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, PackageLoader
from markupsafe import Markup

from owl3 import __version__
from owl3.cards.render import stylesheet, template_environment
from owl3.data.pack import share_rows
from owl3.data.reading import SampleReader
from owl3.errors import ConfigError, InputError
from owl3.ledger import connect
from owl3.manifest import MANIFEST_NAME, read_manifest
from owl3.media import MediaError, thumbnail
from owl3.planfile import Plan
from owl3.samples import Sample

_THUMBNAIL_PX = 160


@dataclass(frozen=True, slots=True)
class Said:
    """What one turn of a sample says, pictures shown as [0], [1], …"""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class SeenSample:
    """One sample of a step, and where it stands in it."""

    step: int
    slot: int
    row: int
    rank: int
    dataset: str
    sample_id: str
    kind: str
    source: str
    licence: str
    said: tuple[Said, ...]
    num_media: int
    urls: tuple[str, ...]
    position: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def find_plan(path: Path, workspace: Path) -> Plan:
    """Open the plan that a path means: a plan's folder, or the run (perhaps unfinished) that follows it.

    Raises:
        InputError: the path is neither.
    """
    if (path / MANIFEST_NAME).is_file() and read_manifest(path).kind == "plan":
        return Plan.open(path)
    same_names = workspace / "plans" / path.parent.name / path.name
    if path.is_dir() and (same_names / MANIFEST_NAME).is_file():
        return Plan.open(same_names)
    raise InputError(f"{path}: nothing to inspect; give plans/NAME/STAGE, runs/NAME/STAGE or samples/NAME")


def samples_of_step(
    plan: Plan, workspace: Path, step: int, *, rank: int | None = None, world_size: int = 1
) -> list[SeenSample]:
    """List what a step holds, row by row.

    Args:
        rank: Only the rows that this rank of `world_size` computes.
    """
    if rank is not None and not 0 <= rank < world_size:
        raise ConfigError(f"rank {rank} is not one of {world_size} ranks; give --world too")
    reader = SampleReader(plan, workspace)
    positions = plan.positions(step)
    rows = plan.rows(step)
    found: list[tuple[int, int, int, Sample]] = []
    for owner, mine in enumerate(share_rows(plan.row_tiles(step), world_size)):
        if rank in (None, owner):
            found += [(owner, r, int(slot), reader.read(int(positions[slot])).sample) for r in mine for slot in rows[r]]
    reader.close()
    urls = urls_of(workspace, sorted({parent for *_, sample in found for parent in (sample.id, *sample.parents)}))
    return [
        SeenSample(
            step=step,
            slot=slot,
            row=row,
            rank=owner,
            dataset=plan.header.datasets[plan.dataset_of(int(positions[slot]))].name,
            sample_id=sample.id,
            kind=sample.kind,
            source=sample.source,
            licence=sample.licence,
            said=tuple(_said(sample)),
            num_media=sample.num_media,
            urls=tuple(urls[parent] for parent in (sample.id, *sample.parents) if parent in urls),
            position=int(positions[slot]),
        )
        for owner, row, slot, sample in sorted(found, key=lambda entry: (entry[1], entry[2]))
    ]


def urls_of(workspace: Path, sample_ids: Sequence[str]) -> dict[str, str]:
    """Look up the URLs that downloaded samples came from."""
    if not next(workspace.glob("shards/*/[0-9][0-9][0-9][0-9][0-9].parquet"), None):
        return {}
    with connect(workspace) as ledger:
        question = "SELECT sample_id, any_value(url) FROM shard_rows WHERE list_contains(?, sample_id) GROUP BY 1"
        return dict(ledger.execute(question, [list(sample_ids)]).fetchall())


def render_page(plan: Plan, workspace: Path, samples: Sequence[SeenSample]) -> str:
    """Write a page that needs nothing beside it: samples with thumbnails, grouped by row."""
    cards = template_environment()
    assert cards.loader is not None
    environment = cards.overlay(loader=ChoiceLoader([PackageLoader("owl3.data"), cards.loader]))
    reader = SampleReader(plan, workspace)
    rows: dict[int, list[tuple[SeenSample, list[str]]]] = {}
    for sample in samples:
        pictures = [_inline(data) for data in reader.read(sample.position).media]
        rows.setdefault(sample.row, []).append((sample, pictures))
    reader.close()
    step = samples[0].step
    costs = zip(plan.row_tokens(step).tolist(), plan.row_tiles(step).tolist(), strict=True)
    return environment.get_template("inspect.html.jinja").render(
        css=Markup(stylesheet()),
        owl3_version=__version__,
        name=plan.manifest.name,
        digest=plan.digest,
        step=step,
        num_steps=plan.num_steps,
        trained_tokens=plan.trained_tokens(step),
        rows=rows,
        costs=list(costs),
        max_tokens=plan.header.max_tokens,
        max_tiles=plan.header.max_tiles,
    )


def _inline(data: bytes) -> str:
    """A picture as a data URL; empty where it can't be shown."""
    try:
        return "data:image/jpeg;base64," + base64.b64encode(thumbnail(data, _THUMBNAIL_PX)).decode()
    except MediaError:
        return ""


def _said(sample: Sample) -> Iterator[Said]:
    turns = [(str(turn.role), turn.start, turn.end) for turn in sample.turns]
    for role, start, end in turns or [("document", 0, len(sample.segments))]:
        parts = (f"[{s.medium}]" if s.text is None else s.text for s in sample.segments[start:end])
        yield Said(role, " ".join(parts))

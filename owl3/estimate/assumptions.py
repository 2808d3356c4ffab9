"""What an estimate takes for granted about the web, the corpora and the samples; `--assume KEY=VALUE` replaces any."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from owl3.config import Config, validate
from owl3.errors import ConfigError
from owl3.estimate.cluster import Figure, Kind
from owl3.yamlread import parse_yaml


def _figure(value: float, kind: Kind, source: str) -> Any:
    return Field(default_factory=lambda: Figure(value=value, kind=kind, source=source))


class Web(Config):
    """What becomes of a URL of a corpus of web pictures, and what it costs."""

    answered: Figure = _figure(
        0.63, "published", "conceptual-12m issue 9 (62.3 %, October 2025); minit2i-jax issue 2 (63.7 %, August 2026)"
    )
    dead: Figure = _figure(0.08, "published", "dead DNS 6.2 % (minit2i-jax issue 2), plus hosts that accept and stall")
    kept_of_answered: Figure = _figure(
        0.70, "assumed", "rights, size, duplicates and scores together; put your first shards' yield here"
    )
    requests_per_url: Figure = _figure(1.25, "assumed", "redirects and retries; robots.txt is counted apart")
    urls_per_host: Figure = _figure(60, "assumed", "each host is asked for its robots.txt once per machine")
    largest_host: Figure = _figure(0.01, "assumed", "share of URLs on the most frequent host (a picture store)")
    latency_s: Figure = _figure(0.8, "assumed", "from connecting to the last byte, of a host that answers")
    fetched_bytes: Figure = _figure(93_000, "measured", "mean of 400 originals of COCO, LAION, CC and SBU")
    stored_bytes: Figure = _figure(80_000, "assumed", "JPEGs that need no resizing stay as they came; the rest shrink")
    row_bytes: Figure = _figure(150, "assumed", "one row of a URL table in compressed Parquet")


class Sizes(Config):
    """Bytes on disk per row or sample."""

    ledger_row: Figure = _figure(
        300, "measured", "366 in the demo's tables of 300 rows; 120 in `owl3 bench ledger` with its short URLs"
    )
    evidence_row: Figure = _figure(60, "assumed", "times, status and rights signals of a row, zstd")
    sample_row: Figure = _figure(112, "measured", "sample index of `owl3 bench ledger`, zstd, 10,000 rows a file")
    plan_draw: Figure = _figure(6, "recipe", "order.npy (4 bytes) and packs.npy (2 bytes) of owl3/planfile.py")
    plan_sample: Figure = _figure(4, "recipe", "locate.npy of owl3/planfile.py, per sample of the mixture")
    task_run: Figure = _figure(
        9_000, "assumed", "events, states and the row of a task run in SQLite; `python -m flows.scale` measures it"
    )


class Samples(Config):
    """How large one sample of a stage is, while its plan does not exist; a plan's own figures replace this."""

    tokens: float = Field(gt=0)
    pictures: float = Field(ge=0)
    source: str


def _samples() -> dict[str, Samples]:
    return {
        "pretrain": Samples(tokens=30, pictures=1, source="some 25 captions fill a row of 768 tokens (recipe)"),
        "multi_image": Samples(
            tokens=300, pictures=5.8, source="paper's mixture with 8 frames a clip and 3 to 6 pictures a sample"
        ),
        "sft": Samples(tokens=350, pictures=2.4, source="paper's mixture; a fifth of single pictures cut into 6 tiles"),
    }


class Assumptions(Config):
    """See the head of this file."""

    web: Web = Web()
    sizes: Sizes = Sizes()
    samples: dict[str, Samples] = Field(default_factory=_samples)
    other_stage: Samples = Samples(tokens=200, pictures=2, source="a stage that nothing is known of")
    rows_per_shard: int = Field(default=10_000, ge=1)
    """Where the recipe has no `curate` section that says so."""
    task_runs: int = Field(default=64, ge=1)
    """Most task runs per flow run."""
    shards_per_flow_run: int = Field(default=4_096, ge=1)
    """Shards that one flow run of `curate` takes."""
    questions: int = Field(default=1_000, ge=1)
    """Of an evaluation task without a limit."""


def assume(changes: Sequence[str]) -> Assumptions:
    """The defaults with `KEY=VALUE` changes (`web.answered=0.5`).

    Raises:
        ConfigError: no such key, or not a number.
    """
    data = Assumptions().model_dump(mode="json")
    for change in changes:
        key, separator, raw = change.partition("=")
        *parents, last = key.split(".")
        node: Any = data
        for part in parents:
            node = node.get(part) if isinstance(node, dict) else None
        if not separator or not isinstance(node, dict) or last not in node:
            raise ConfigError(f"--assume {change}: no such assumption; `owl3 estimate … --json` lists them")
        value = parse_yaml(raw, f"--assume {change}")
        is_figure = isinstance(node[last], dict) and "kind" in node[last]
        node[last] = {"value": value, "kind": "assumed", "source": "given by --assume"} if is_figure else value
    return validate(data, Assumptions, "--assume")

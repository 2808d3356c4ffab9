"""A cluster as the estimate sees it: machines, rates, failures and prices, each number with where it comes from.

A number is written in `infra/clusters/*.yaml` as `{value, kind, source}`. A rate may also name a benchmark's table, as
`{table: ../bench/plan.json, at: seconds, per: samples, …}`: while that file is there its figure is taken, else `value`.
"""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from owl3.config import Config, load_yaml
from owl3.errors import ConfigError

CLUSTER = Path(__file__).parents[2] / "infra" / "clusters" / "8xH100.yaml"
"""The cluster of the paper's size that is shipped."""

Kind = Literal["measured", "published", "assumed", "recipe", "plan"]


class Figure(Config):
    """A number and how far to trust it."""

    value: float = Field(ge=0)
    kind: Kind
    source: str
    """Who says so: a benchmark with its machine, a paper or data sheet, or why we assume it."""
    table: Path | None = None
    """JSON of `owl3 bench`, beside the file that names it."""
    at: str = ""
    """Where the figure stands in `table`, as `fetch.cpu_ms.owl3`."""
    per: str = ""
    """Divide by the figure that stands there; "1/" before it divides that by the figure."""


class Accelerators(Config):
    """The machines that train and evaluate."""

    nodes: int = Field(ge=1)
    per_node: int = Field(ge=1)
    card: str
    peak_flops: Figure
    """Of one card, dense, in the precision that is trained with."""
    memory_gib: Figure

    @property
    def count(self) -> int:
        """Cards altogether."""
        return self.nodes * self.per_node


class Machines(Config):
    """The machines that fetch, decide, build, plan and audit."""

    count: int = Field(ge=1)
    cores: int = Field(ge=1)
    network_gbit_s: Figure
    """Of one machine, from the web."""
    connections: int = Field(ge=1)
    """Requests under way at once on one machine."""


class Prices(Config):
    """What things cost; zero what you own. The currency is the cluster's."""

    gpu_hour: Figure
    machine_hour: Figure
    terabyte_month: Figure
    million_writes: Figure
    """PUT requests to the object store."""


class Failures(Config):
    """What goes wrong with machines while they work."""

    machine_mtbf_h: Figure
    """Mean hours between a machine's own failures."""
    preemptions_per_h: Figure
    """Of one machine: spot instances are taken away."""
    restart_h: Figure
    """Until a lost machine is replaced and works again."""
    shard_failure: Figure
    """Share of shards whose first attempt ends without a result (a crash or a hang of the engine)."""


class Rates(Config):
    """How fast our code is: per core unless said otherwise."""

    prepare_rows_s: Figure
    fetch_pictures_s: Figure
    """Pictures fetched, checked and stored per second."""
    failed_rows_s: Figure
    """Rows that end without a picture, per second."""
    look_rows_s: Figure
    """Rows compared with all others: duplicates, dead hosts, repeated captions. One process."""
    build_samples_s: Figure
    plan_samples_s: Figure
    """One process."""
    audit_bytes_s: Figure
    flops_used: Figure
    """Share of the cards' peak that training uses (MFU), recomputation not counted as use."""
    recomputed: Figure
    """Training time is stretched by this factor where gradient checkpointing computes the forward pass again."""
    questions_s: Figure
    """Answers of one card per second, as `owl3 eval` gives them."""
    storage_bytes_s: Figure
    """What one training node writes to shared storage."""


class Cluster(Config):
    """See the head of this file."""

    name: str
    currency: str = "USD"
    accelerators: Accelerators
    machines: Machines
    rates: Rates
    failures: Failures
    prices: Prices


def load_cluster(path: Path) -> Cluster:
    """Read a cluster file, with the figures of benchmark tables that are there.

    Raises:
        ConfigError: naming the file and the key.
    """
    cluster = load_yaml(path, Cluster)
    rates = {
        name: read_table(figure, path, f"rates.{name}")
        for name, figure in ((name, getattr(cluster.rates, name)) for name in Rates.model_fields)
    }
    return cluster.model_copy(update={"rates": Rates(**rates)})


def read_table(figure: Figure, beside: Path, key: str) -> Figure:
    """Take a figure from the benchmark table that it names, where that exists.

    Raises:
        ConfigError: the table is there and does not hold it.
    """
    if figure.table is None or not (path := beside.parent / figure.table).is_file():
        return figure
    try:
        data = json.loads(path.read_bytes())
        value = float(_at(data, figure.at))
        if figure.per.startswith("1/"):
            value = float(_at(data, figure.per[2:])) / value
        elif figure.per:
            value /= float(_at(data, figure.per))
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise ConfigError(f"{beside}: {key}: {path} has no figure at {figure.at!r} {figure.per!r} ({error})") from error
    return figure.model_copy(update={"value": value, "kind": "measured", "source": f"{figure.table} at {figure.at}"})


def _at(data: Any, place: str) -> Any:
    for part in place.split("."):
        data = data[part]
    return data

"""What each step of a recipe costs on a cluster: hours, bytes, requests, GPU-hours and money, with every assumption."""

from dataclasses import dataclass
from pathlib import Path

from owl3.config import Config
from owl3.curate.limits import DownloadConfig
from owl3.data.needs import mixture_needs
from owl3.estimate.assumptions import Assumptions, Samples
from owl3.estimate.cluster import Cluster, Figure
from owl3.estimate.simulation import Course, Run, simulate
from owl3.manifest import MANIFEST_NAME
from owl3.planfile import Plan
from owl3.recipe import Recipe
from owl3.train.stages import StageConfig

_SPREAD = 0.35
_MAX_SIMULATED = 200_000
HOURS_A_MONTH = 730.0


class Cost(Config):
    """One step."""

    step: str
    hours: float = 0.0
    limited_by: str = ""
    machine_hours: float = 0.0
    gpu_hours: float = 0.0
    read_bytes: float = 0.0
    """From the web."""
    stored_bytes: float = 0.0
    """That stay."""
    requests: float = 0.0
    """To the web; for other steps, writes to the store."""
    money: float = 0.0


class Curation(Config):
    """A number of URLs, fetched and curated."""

    label: str
    urls: float
    pairs: float
    shards: int
    partitions: int
    """Flow runs that take it in."""
    costs: tuple[Cost, ...]
    politeness_hours: float
    """Floor set by the most frequent host alone."""
    course: Course
    ledger_bytes: float
    prefect_bytes: float
    prefect_bytes_ungrouped: float
    """Were each shard a task run of its own."""


class Estimate(Config):
    """All steps of a recipe."""

    recipe: str
    cluster: str
    currency: str
    curations: tuple[Curation, ...]
    costs: tuple[Cost, ...]
    """What does not depend on the number of URLs: build, plan, train, evaluate, audit."""
    plan_bytes: float
    used: dict[str, Figure]
    """Every assumption and rate, by name."""


@dataclass(frozen=True)
class Estimator:
    """A recipe, a cluster, and what is taken for granted.

    Attributes:
        shapes: Per stage what `owl3.estimate.shapes` counted.
        workspace: Plans that lie here replace assumptions on samples.
    """

    recipe: Recipe
    cluster: Cluster
    assumed: Assumptions
    shapes: dict[str, dict[str, float]]
    workspace: Path

    def estimate(self, urls: dict[str, float]) -> Estimate:
        """Add everything up; `urls` are numbers of URLs to curate, each with a label."""
        wanted = {"what the recipe draws": self.urls_for_recipe(), **urls} if self.recipe.stages else urls
        return Estimate(
            recipe=self.recipe.name,
            cluster=self.cluster.name,
            currency=self.cluster.currency,
            curations=tuple(self.curation(label, count) for label, count in wanted.items() if count),
            costs=(*self.building(), *self.planning(), *self.training(), *self.evaluating(), *self.auditing()),
            plan_bytes=self._plan_bytes(),
            used=self._used(),
        )

    def urls_for_recipe(self) -> float:
        """URLs that give the samples of the first stage, at the assumed yield."""
        web = self.assumed.web
        needs = mixture_needs(self.recipe.stages[0].data, self.workspace)
        return sum(need.min_samples or 0 for need in needs) / (web.answered.value * web.kept_of_answered.value)

    def curation(self, label: str, urls: float) -> Curation:
        """Sources, fetching and the look at the whole corpus."""
        web, rates, machines = self.assumed.web, self.cluster.rates, self.cluster.machines
        answered = urls * web.answered.value
        pairs = answered * web.kept_of_answered.value
        read = answered * web.fetched_bytes.value
        requests = urls * web.requests_per_url.value + machines.count * urls / web.urls_per_host.value
        connections = machines.count * machines.connections
        seconds = {
            **self._work_seconds(
                answered / rates.fetch_pictures_s.value + (urls - answered) / rates.failed_rows_s.value, read
            ),
            "connections": self._connection_seconds(urls) / connections,
        }
        limit = max(seconds, key=lambda name: seconds[name])
        course = self._course(urls, seconds[limit])
        prepare_h = urls / rates.prepare_rows_s.value / (machines.count * machines.cores) / 3600
        look_h = urls / rates.look_rows_s.value / 3600
        politeness_h = self._politeness_hours(urls)
        fetch_h = max(course.hours, politeness_h)
        shards = -(-int(urls) // self._rows_per_shard())
        sizes = self.assumed.sizes
        ledger = urls * (sizes.ledger_row.value + sizes.evidence_row.value)
        stored = pairs * web.stored_bytes.value + ledger
        flow_runs = -(-shards // self.assumed.shards_per_flow_run)
        return Curation(
            label=label,
            urls=urls,
            pairs=pairs,
            shards=shards,
            partitions=flow_runs,
            costs=(
                self._cost("source", prepare_h, "cores", stored=urls * web.row_bytes.value, writes=shards),
                self._cost(
                    "curate: fetch and decide",
                    fetch_h,
                    limit if course.hours >= politeness_h else "the most frequent host",
                    read=read,
                    stored=stored,
                    requests=requests,
                    writes=4 * shards,
                ),
                self._cost("curate: look at all rows", look_h, "one process", machines=1),
            ),
            politeness_hours=politeness_h,
            course=course,
            ledger_bytes=ledger,
            prefect_bytes=flow_runs * (self.assumed.task_runs + 2) * sizes.task_run.value,
            prefect_bytes_ungrouped=shards * sizes.task_run.value,
        )

    def building(self) -> list[Cost]:
        """Samples of every stage that are not there yet: as many as the mixture draws, within the allowed epochs."""
        made = []
        web, rates = self.assumed.web, self.cluster.rates
        for stage in self.recipe.stages:
            needs = mixture_needs(stage.data, self.workspace)
            samples = sum(need.min_samples or 0 for need in needs if not need.is_met)
            shape = self.samples(stage)
            per_sample = shape.pictures * web.stored_bytes.value + self.assumed.sizes.sample_row.value
            stored = samples * per_sample
            seconds = self._work_seconds(samples / rates.build_samples_s.value, 2 * stored)  # read, and written
            limit = max(seconds, key=lambda name: seconds[name])
            writes = 2 * -(-samples // self.assumed.rows_per_shard)
            cost = self._cost(f"build {stage.name}", seconds[limit] / 3600, limit, stored=stored, writes=writes)
            made.append(cost)
        return made

    def planning(self) -> list[Cost]:
        """The order of every stage: one process."""
        made = []
        for stage in self.recipe.stages:
            hours = self._draws(stage) / self.cluster.rates.plan_samples_s.value / 3600
            made.append(self._cost(f"plan {stage.name}", hours, "one process", machines=1, writes=8))
        return made

    def training(self) -> list[Cost]:
        """The stages: arithmetic at the cluster's utilisation, and checkpoints to shared storage."""
        made = []
        cards, rates = self.cluster.accelerators, self.cluster.rates
        for stage in self.recipe.stages:
            shape, counted = self.samples(stage), self.shapes[stage.name]
            tokens, pictures = self._draws(stage) * shape.tokens, self._draws(stage) * shape.pictures
            operations = tokens * counted["flops_per_token"] + pictures * counted["flops_per_picture"]
            seconds = operations / (cards.count * cards.peak_flops.value * rates.flops_used.value)
            if stage.gradient_checkpointing:
                seconds *= rates.recomputed.value
            saves = -(-self._steps(stage) // stage.save_steps)
            saving = saves * counted["checkpoint_bytes"] / (cards.nodes * rates.storage_bytes_s.value)
            fits = counted["rank_bytes"] <= cards.memory_gib.value * 2**30
            hours = (seconds + saving) / 3600
            cost = self._cost(
                f"train {stage.name}",
                hours,
                "arithmetic" if fits else f"does not fit: {counted['rank_bytes'] / 2**30:.0f} GiB a card",
                machines=0,
                stored=min(saves, stage.save_total_limit) * counted["checkpoint_bytes"] + 2 * counted["parameters"],
                writes=10 * saves,
                gpus=cards.count,
            )
            made.append(cost)
        return made

    def evaluating(self) -> list[Cost]:
        """The tasks of every saved checkpoint, with the recipe's limits; blind runs put each question once more."""
        if self.recipe.eval is None:
            return []
        made, some = [], self.assumed.questions
        limits, ends = [], []
        for task in self.recipe.eval.tasks:
            limits.append((task.checkpoint_limit or task.limit or some) * (2 if task.blind == "always" else 1))
            ends.append((task.limit or some) * (1 if task.blind == "never" else 2))
        for stage in self.recipe.stages:
            saves = -(-self._steps(stage) // stage.save_steps)
            questions = (saves - 1) * sum(limits) + sum(ends)
            gpu_hours = questions / self.cluster.rates.questions_s.value / 3600
            hours = gpu_hours / self.cluster.accelerators.count
            made.append(
                self._cost(
                    f"evaluate {stage.name}",
                    hours,
                    f"{questions:,.0f} questions",
                    machines=0,
                    gpus=self.cluster.accelerators.count,
                )
            )
        return made

    def auditing(self) -> list[Cost]:
        """Card and audit: every stored byte of the samples is hashed again."""
        stored = sum(cost.stored_bytes for cost in self.building())
        seconds = self._work_seconds(stored / self.cluster.rates.audit_bytes_s.value, stored)
        limit = max(seconds, key=lambda name: seconds[name])
        return [self._cost("card and audit", seconds[limit] / 3600, limit)]

    def _work_seconds(self, core_seconds: float, moved_bytes: float) -> dict[str, float]:
        """What the machines need for work that is spread over them all, by what may hold them up."""
        machines = self.cluster.machines
        return {
            "cores": core_seconds / (machines.count * machines.cores),
            "network": moved_bytes * 8 / (machines.count * machines.network_gbit_s.value * 1e9),
        }

    def samples(self, stage: StageConfig) -> Samples:
        """Tokens and pictures of a sample: as planned where a plan lies in the workspace, else assumed."""
        folder = self.workspace / "plans" / self.recipe.name / stage.name
        if (folder / MANIFEST_NAME).is_file():
            plan = Plan.open(folder)
            draws = plan.num_steps * plan.global_batch_size
            tokens, tiles = (float(plan.steps[name].sum()) / draws for name in ("tokens", "tiles"))
            return Samples(tokens=tokens, pictures=tiles, source=f"plan {plan.manifest.name}")
        return self.assumed.samples.get(stage.name, self.assumed.other_stage)

    def _steps(self, stage: StageConfig) -> int:
        folder = self.workspace / "plans" / self.recipe.name / stage.name
        if stage.data.steps is None:  # given in epochs: only a plan knows
            return Plan.open(folder).num_steps
        return stage.data.steps

    def _draws(self, stage: StageConfig) -> int:
        return self._steps(stage) * stage.data.global_batch_size

    def _plan_bytes(self) -> float:
        sizes = self.assumed.sizes
        total = 0.0
        for stage in self.recipe.stages:
            needs = mixture_needs(stage.data, self.workspace)
            samples = sum(need.kept or need.min_samples or 0 for need in needs)
            total += self._draws(stage) * sizes.plan_draw.value + samples * sizes.plan_sample.value
        return total

    def _rows_per_shard(self) -> int:
        curated = self.recipe.curate
        return curated[0].engine.number_sample_per_shard if curated else self.assumed.rows_per_shard

    @property
    def _fetch(self) -> DownloadConfig:
        """How the recipe fetches, or the defaults."""
        return self.recipe.curate[0].fetch if self.recipe.curate else DownloadConfig()

    def _connection_seconds(self, urls: float) -> float:
        """Time that connections are held: answers, and the first failures of each dead host until it is given up."""
        web = self.assumed.web
        fetch = self._fetch
        dead_hosts = urls * web.dead.value / web.urls_per_host.value
        patience = fetch.hosts.dead_host_failures * self.cluster.machines.count
        on_dead = min(urls * web.dead.value, dead_hosts * patience)
        waited_s = min(fetch.deadline_s, fetch.timeout * (fetch.retries + 1))
        return urls * (1 - web.dead.value) * web.latency_s.value + on_dead * waited_s

    def _politeness_hours(self, urls: float) -> float:
        web, machines = self.assumed.web, self.cluster.machines
        hosts = self._fetch.hosts
        rate = machines.count * (hosts.requests_per_s or hosts.connections_per_host / web.latency_s.value)
        return urls * web.largest_host.value / rate / 3600

    def _course(self, urls: float, work_s: float) -> Course:
        """Simulate; of more than `_MAX_SIMULATED` shards so many are simulated, each standing for several."""
        machines, failures = self.cluster.machines, self.cluster.failures
        shards = max(1, -(-int(urls) // self._rows_per_shard()))
        simulated = min(shards, _MAX_SIMULATED)
        slots = max(1, min(machines.cores // 2, simulated // machines.count))
        run = Run(
            shards=simulated,
            machines=machines.count,
            slots=slots,
            shard_s=work_s * machines.count * slots / simulated,
            spread=_SPREAD,
            tail_s=self._fetch.deadline_s,
            shard_failure=failures.shard_failure.value,
            losses_per_s=(1 / failures.machine_mtbf_h.value + failures.preemptions_per_h.value) / 3600,
            restart_s=failures.restart_h.value * 3600,
        )
        return simulate(run)

    def _cost(
        self,
        step: str,
        hours: float,
        limited_by: str,
        *,
        machines: int | None = None,
        gpus: int = 0,
        read: float = 0.0,
        stored: float = 0.0,
        requests: float = 0.0,
        writes: float = 0.0,
    ) -> Cost:
        """Put a price on a step; storage is counted for one month."""
        prices = self.cluster.prices
        machine_hours = hours * (self.cluster.machines.count if machines is None else machines)
        gpu_hours = hours * gpus
        money = (
            machine_hours * prices.machine_hour.value
            + gpu_hours * prices.gpu_hour.value
            + stored / 1e12 * prices.terabyte_month.value
            + writes / 1e6 * prices.million_writes.value
        )
        return Cost(
            step=step,
            hours=hours,
            limited_by=limited_by,
            machine_hours=machine_hours,
            gpu_hours=gpu_hours,
            read_bytes=read,
            stored_bytes=stored,
            requests=requests or writes,
            money=money,
        )

    def _used(self) -> dict[str, Figure]:
        """Every number that went in, by its key."""
        found: dict[str, Figure] = {}
        for section, holder in (
            ("web", self.assumed.web),
            ("sizes", self.assumed.sizes),
            ("rates", self.cluster.rates),
            ("failures", self.cluster.failures),
            ("prices", self.cluster.prices),
            ("accelerators", self.cluster.accelerators),
            ("machines", self.cluster.machines),
        ):
            for name, value in holder:
                if isinstance(value, Figure):
                    found[f"{section}.{name}"] = value
        for stage in self.recipe.stages:
            shape = self.samples(stage)
            kind = "plan" if shape.source.startswith("plan ") else "assumed"
            for part in ("tokens", "pictures"):
                key = f"samples.{stage.name}.{part}"
                found[key] = Figure.model_validate(
                    {"value": getattr(shape, part), "kind": kind, "source": shape.source}
                )
        return found

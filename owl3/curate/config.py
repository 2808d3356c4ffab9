"""What a recipe says of one set of shards: from which source, fetched how, decided how."""

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from owl3 import tools
from owl3.config import Config
from owl3.curate.blocklist import Blocklist
from owl3.curate.contamination import Benchmark, benchmark_files
from owl3.curate.decide import ImageRules, RowRules, VideoRules
from owl3.curate.dedup import DedupConfig
from owl3.curate.embed import ClipConfig
from owl3.curate.engine import EngineConfig
from owl3.curate.faces import FaceConfig
from owl3.curate.fetch import check_distributor
from owl3.curate.limits import DownloadConfig
from owl3.curate.sources.corpus import find_corpus, merged
from owl3.curate.sources.urltables import count_rows, source_folder
from owl3.errors import ConfigError
from owl3.manifest import MANIFEST_NAME, read_manifest
from owl3.storage import sha256_of


class CurateConfig(Config):
    """One set of shards: from which source, fetched how, decided how."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    source: str
    corpus: str | None = None
    """A corpus of the catalogue whose filters are the defaults here (`owl3 sources show NAME`)."""
    fetch: DownloadConfig = DownloadConfig()
    engine: EngineConfig = EngineConfig()
    rows: RowRules = RowRules()
    image: ImageRules = ImageRules()
    video: VideoRules = VideoRules()
    verify_sha256: bool = True
    """Drop media whose bytes are not the ones that the corpus recorded, where it recorded any."""
    dedup: DedupConfig = DedupConfig()
    blocklists: tuple[Blocklist, ...] = ()
    decontaminate: tuple[Benchmark, ...] = ()
    faces: FaceConfig | None = None
    """Blur the faces that a detector finds, in rows that bring no boxes of their own."""
    clip: ClipConfig | None = None
    """Let a CLIP score pictures against captions, and index them (needs `owl3 tools install clip`)."""
    max_drop_fraction: float | None = Field(default=None, ge=0, le=1)
    """With more dropped than this the run ends as a failed check, with all evidence left in place."""

    @model_validator(mode="before")
    @classmethod
    def _take_from_catalogue(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("corpus"), str):
            return merged(find_corpus(data["corpus"]).curate, data)
        return data

    def recipe(self, workspace: Path) -> dict[str, Any]:
        """What the manifest records: all that shapes the output, so the digest is the same at any parallelism.

        Raises:
            InputError: a blocklist or a benchmark is missing.
            ConfigError: the face detector's model is missing.
        """
        lists = [{"kind": entry.kind, "sha256": sha256_of(entry.path(workspace))} for entry in self.blocklists]
        benchmarks = {entry.name: benchmark_files(entry, workspace) for entry in self.decontaminate}
        inputs: dict[str, Any] = {"blocklist_files": lists, "benchmark_files": benchmarks}
        if self.faces is not None:
            inputs["faces"] = self.faces.recipe(workspace)
        return self.model_dump(mode="json") | {"engine": self.engine.recipe()} | inputs


def shards_folder(workspace: Path, name: str) -> Path:
    """Where a curated corpus lies."""
    return workspace / "shards" / name


def num_shards(config: CurateConfig, workspace: Path) -> int:
    """How many shards a prepared source is cut into."""
    rows = count_rows(source_folder(workspace, config.source))
    return -(-rows // config.engine.number_sample_per_shard)


def check_contact(config: CurateConfig) -> None:
    """Make sure that whoever is asked can see who asks.

    Raises:
        ConfigError: the recipe names nobody.
    """
    if not config.fetch.contact and not config.fetch.allow_private_hosts:
        raise ConfigError(f"curate {config.name}: fetch.contact must say how site owners reach you (mail or page)")


def check_ready(config: CurateConfig, workspace: Path) -> None:
    """Look for what would end a run of this set at once, before anything is fetched.

    Raises:
        ConfigError: the recipe names no contact, or a model of its own is missing.
        InputError: a program that it needs is not installed, or a list or benchmark that it names is missing.
    """
    check_contact(config)
    config.recipe(workspace)
    folder = source_folder(workspace, config.source)
    is_prepared = (folder / MANIFEST_NAME).is_file()
    if is_prepared and read_manifest(folder).stats["media"] == "image" and config.engine.distributor != "none":
        check_distributor(config.engine)
    if config.clip is not None:
        tools.python("clip")

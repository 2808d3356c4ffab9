"""OpenLineage events about artifacts, so that Marquez and the like can draw the chain.

One `COMPLETE` event per finished artifact: the job that made it (its kind and name), its parents as inputs, itself as
output, each with its digest as dataset version, its counts as output statistics, and the drop reasons as a facet of our
own. Run ids are made of digests, so telling the same artifact twice is the same run.

Events go to a file by default. `OPENLINEAGE_URL` or `--url` sends them to a server instead.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attr
from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    DatasetFacet,
    JobFacet,
    dataset_version_dataset,
    documentation_job,
    output_statistics_output_dataset,
)
from openlineage.client.transport.file import FileConfig, FileTransport
from openlineage.client.transport.http import HttpConfig, HttpTransport
from requests.exceptions import RequestException

from owl3 import __version__
from owl3.cards.chain import FOLDERS
from owl3.errors import InputError
from owl3.manifest import MANIFEST_NAME, Manifest, Parent, read_manifest

NAMESPACE = "owl3"
PRODUCER = f"https://pypi.org/project/owl3/{__version__}"
_RUNS = uuid.UUID("7f0b5a3e-53a1-5c8a-9b1f-3a7c0f3d5b11")


@attr.define
class ConservationFacet(DatasetFacet):  # type: ignore[misc]  # the package has no types
    """What became of everything that came in."""

    seen: int = 0
    kept: int = 0
    dropped: dict[str, int] = attr.field(factory=dict)

    @staticmethod
    def _get_schema() -> str:
        return f"{PRODUCER}#conservation"


def finished_artifacts(workspace: Path) -> list[Manifest]:
    """Manifests of a workspace, parents before children."""
    found = []
    for folder in FOLDERS.values():
        paths = [*workspace.glob(f"{folder}/*/{MANIFEST_NAME}"), *workspace.glob(f"{folder}/*/*/{MANIFEST_NAME}")]
        manifests = [read_manifest(path.parent) for path in sorted(paths)]
        found += [manifest for manifest in manifests if FOLDERS.get(manifest.kind) == folder]
    return found


def event(manifest: Manifest) -> RunEvent:
    """The event that tells of a finished artifact."""
    return RunEvent(
        eventType=RunState.COMPLETE,
        eventTime=manifest.ended,
        run=Run(runId=str(uuid.uuid5(_RUNS, manifest.digest))),
        job=Job(namespace=NAMESPACE, name=f"{manifest.kind}.{manifest.name}", facets=_job_facets(manifest)),
        producer=PRODUCER,
        inputs=[_input(parent) for parent in manifest.parents],
        outputs=[_output(manifest)],
    )


def _job_facets(manifest: Manifest) -> dict[str, JobFacet]:
    text = f"makes {manifest.kind} {manifest.name}"
    return {"documentation": documentation_job.DocumentationJobFacet(description=text)}


def _version(digest: str) -> dict[str, Any]:
    return {"version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=digest)}


def _input(parent: Parent) -> InputDataset:
    return InputDataset(namespace=NAMESPACE, name=f"{parent.kind}/{parent.name}", facets=_version(parent.digest))


def _output(manifest: Manifest) -> OutputDataset:
    counts = manifest.counts
    statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        rowCount=counts.kept,
        size=sum(entry.bytes for entry in manifest.files if not entry.volatile),
        fileCount=len(manifest.files),
    )
    conservation = ConservationFacet(seen=counts.seen, kept=counts.kept, dropped=dict(counts.dropped))
    return OutputDataset(
        namespace=NAMESPACE,
        name=f"{manifest.kind}/{manifest.name}",
        facets=_version(manifest.digest) | {"owl3_conservation": conservation},
        outputFacets={"outputStatistics": statistics},
    )


def emit(manifests: Iterable[Manifest], *, file: Path | None = None, url: str | None = None) -> int:
    """Send one event per artifact to a file (one JSON object per line) or to a server; returns how many.

    Raises:
        InputError: the URL is none, or nobody there takes events.
    """
    if url:
        try:
            transport: Any = HttpTransport(HttpConfig(url=url))
        except ValueError as error:
            raise InputError(f"--url {url}: no address of a server; write it as http://localhost:5000") from error
    else:
        assert file is not None, "give a file or a url"
        file.parent.mkdir(parents=True, exist_ok=True)
        transport = FileTransport(FileConfig(log_file_path=str(file), append=True))
    client = OpenLineageClient(transport=transport)
    sent = 0
    try:
        for manifest in manifests:
            client.emit(event(manifest))
            sent += 1
    except RequestException as error:
        why = type(error).__name__
        raise InputError(f"--url {url}: takes no events ({why}); is an OpenLineage server there?") from error
    finally:
        client.close()
    return sent

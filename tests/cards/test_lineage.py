"""OpenLineage events of the chain: to a file, and to a server on this machine."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from owl3.cards.lineage import emit, event, finished_artifacts
from owl3.manifest import read_manifest


def test_every_artifact_is_told_with_its_parents_and_counts(workspace: Path, tmp_path: Path) -> None:
    manifests = finished_artifacts(workspace)
    assert emit(manifests, file=tmp_path / "events.jsonl") == len(manifests) == 8
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    told = {e["outputs"][0]["name"]: e for e in events}
    shards = read_manifest(workspace / "shards" / "tiny")
    samples = told["samples/pairs"]
    versions = {i["name"]: i["facets"]["version"]["datasetVersion"] for i in samples["inputs"]}
    assert versions["shards/tiny"] == shards.digest
    output = told["shards/tiny"]["outputs"][0]
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == shards.counts.kept
    assert output["facets"]["owl3_conservation"]["dropped"] == shards.counts.dropped
    assert {e["eventType"] for e in events} == {"COMPLETE"}


def test_the_same_artifact_is_the_same_run(workspace: Path) -> None:
    manifest = read_manifest(workspace / "shards" / "tiny")
    assert event(manifest).run.runId == event(manifest).run.runId
    other = read_manifest(workspace / "samples" / "pairs")
    assert event(manifest).run.runId != event(other).run.runId


def test_events_reach_a_server(workspace: Path) -> None:
    received: list[dict[str, Any]] = []

    class Server(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            return None

    server = HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        emit([read_manifest(workspace / "shards" / "tiny")], url=f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
    assert [entry["outputs"][0]["name"] for entry in received] == ["shards/tiny"]

"""Tell an orchestrator that something happened, wherever the process was started from. Best effort: state is on disk.

With PREFECT_API_URL set, an event is posted to that Prefect server, where automations wait for it
(`infra/automations.yaml`), with Prefect's own PREFECT_API_AUTH_STRING or PREFECT_API_KEY where one is set. Without a
server, or when nobody answers, work goes on as if nothing had been asked: whoever looks at the folders later finds the
same things to do.
"""

import base64
import json
import logging
import os
import threading
import urllib.request
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any

logger = logging.getLogger(__name__)

TIMEOUT_S = 5.0
_SAID_NO: set[str] = set()


def emit(event: str, resource: str, *, labels: Mapping[str, str] = {}, payload: Mapping[str, Any] = {}) -> None:
    """Post an event from a thread of its own; the caller never waits and never fails.

    Args:
        event: What happened, as `owl3.checkpoint.saved`.
        resource: What it happened to, as `owl3.run.demo.sft`.
        labels: More about the resource; automations can match on them.
        payload: More about the event.
    """
    api = os.environ.get("PREFECT_API_URL")
    if not api:
        return
    threading.Thread(target=post, args=(api, build(event, resource, labels, payload)), name="event").start()


def build(event: str, resource: str, labels: Mapping[str, str], payload: Mapping[str, Any]) -> dict[str, Any]:
    """An event as Prefect's API takes it."""
    return {
        "id": str(uuid.uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": event,
        "resource": {"prefect.resource.id": resource, **labels},
        "related": [],
        "payload": dict(payload),
    }


def _credentials() -> dict[str, str]:
    """What Prefect's own client would show the server."""
    if auth := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(auth.encode()).decode()}"}
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    return {}


def post(api: str, event: Mapping[str, Any]) -> bool:
    """Post one event; whether it arrived. Of an address only the first failure is logged."""
    try:
        request = urllib.request.Request(
            f"{api.rstrip('/')}/events",
            data=json.dumps([event]).encode(),
            headers={"Content-Type": "application/json", **_credentials()},
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            return True
    except (OSError, ValueError, HTTPException) as error:
        if api not in _SAID_NO:
            _SAID_NO.add(api)
            logger.warning("no event could be sent to PREFECT_API_URL (%s); everything else goes on", error)
        return False

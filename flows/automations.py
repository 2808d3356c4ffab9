"""`python -m flows.automations`: make or update what stands in infra/automations.yaml on the server of PREFECT_API_URL.

Deployments and blocks are named in the file and looked up here. An automation whose deployment or block is not on the
server is left out and named; the others are made.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.client.orchestration import PrefectClient, get_client
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound

from owl3.errors import InputError, exit_code_of
from owl3.yamlread import read_yaml

FILE = Path(__file__).parent.parent / "infra" / "automations.yaml"


def read_automations(path: Path) -> list[dict[str, Any]]:
    """The automations of a file, still with names in place of ids.

    Raises:
        InputError: it is no such file.
    """
    data = read_yaml(path)
    if not isinstance(data, dict) or not isinstance(data.get("automations"), list):
        raise InputError(f"{path}: must hold a list under `automations`")
    return [dict(entry) for entry in data["automations"]]


async def deploy(path: Path, client: PrefectClient) -> dict[str, str]:
    """Make or update every automation of a file; says of each `made`, `updated`, or what is missing for it."""
    told: dict[str, str] = {}
    for entry in read_automations(path):
        try:
            automation = AutomationCore.model_validate(await resolved(entry, client))
        except LookupError as missing:
            told[entry["name"]] = f"left out: no {missing.args[0]} on this server"
            continue
        there = await client.read_automations_by_name(entry["name"])
        if there:
            await client.update_automation(there[0].id, automation)
        else:
            await client.create_automation(automation)
        told[entry["name"]] = "updated" if there else "made"
    return told


async def resolved(entry: Mapping[str, Any], client: PrefectClient) -> dict[str, Any]:
    """An automation with the ids of what it names.

    Raises:
        LookupError: a deployment or block is not there; its argument names it.
    """
    return {**entry, "actions": [await _resolved_action(action, client) for action in entry["actions"]]}


async def _resolved_action(action: Mapping[str, Any], client: PrefectClient) -> dict[str, Any]:
    rest = {key: value for key, value in action.items() if key not in ("deployment", "block")}
    try:
        if "deployment" in action:
            rest["deployment_id"] = (await client.read_deployment_by_name(action["deployment"])).id
        if "block" in action:
            kind, _, name = action["block"].partition("/")
            rest["block_document_id"] = (await client.read_block_document_by_name(name, kind)).id
    except ObjectNotFound as error:
        named = f"deployment {action['deployment']}" if "deployment" in action else f"block {action['block']}"
        raise LookupError(named) from error
    return rest


async def _main(path: Path) -> None:
    async with get_client() as client:
        for name, what in (await deploy(path, client)).items():
            sys.stdout.write(f"{name}: {what}\n")


def main() -> None:
    """Run from a command line."""
    parser = argparse.ArgumentParser(prog="python -m flows.automations", description=__doc__)
    parser.add_argument("--file", type=Path, default=FILE)
    asyncio.run(_main(parser.parse_args().file))


if __name__ == "__main__":
    sys.exit(exit_code_of(main))

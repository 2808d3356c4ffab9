"""Every deployment of infra/prefect.yaml can be run as it stands there, and its schedule says the day it promises."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "infra" / "prefect.yaml").read_text())["deployments"]
ASKED_OF_A_PERSON = {"retract": {"subject": "photos.owl3.test", "reason": "the owner asked", "what": "domain"}}
MONDAY_NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
NEXT = {
    "curate-nightly": datetime(2026, 1, 6, 2, tzinfo=UTC),
    "rights-recheck-weekly": datetime(2026, 1, 11, 3, tzinfo=UTC),
    "audit-weekly": datetime(2026, 1, 11, 4, tzinfo=UTC),
}


@pytest.mark.parametrize("entry", DEPLOYMENTS, ids=lambda entry: entry["name"])
def test_the_entrypoint_is_a_flow_that_takes_the_parameters(entry: dict[str, Any]) -> None:
    from prefect.flows import load_flow_from_entrypoint

    path, _, name = entry["entrypoint"].partition(":")
    flow = load_flow_from_entrypoint(f"{ROOT / path}:{name}")
    given = entry["parameters"] | ASKED_OF_A_PERSON.get(entry["name"], {})
    taken = flow.validate_parameters(given)
    assert taken.keys() >= given.keys()
    assert isinstance(taken["workspace"], Path), "what the form of the UI gives becomes what the flow expects"
    assert flow.name == name.replace("_", "-"), "automations and people know it by this name"


def test_a_recipe_that_a_deployment_names_is_there() -> None:
    named = {entry["parameters"]["recipe"] for entry in DEPLOYMENTS if "recipe" in entry["parameters"]}
    assert named
    assert all((ROOT / recipe).is_file() for recipe in named)


def test_the_nightly_curation_makes_anew_what_is_stale() -> None:
    [nightly] = [entry for entry in DEPLOYMENTS if entry["name"] == "curate-nightly"]
    assert "stale" in nightly["description"] and nightly["parameters"]["backfill"] is True


def test_every_schedule_fires_when_it_should() -> None:
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.server.schemas.schedules import CronSchedule as Clock

    found = {}
    for entry in DEPLOYMENTS:
        for schedule in entry.get("schedules", []):
            clock = Clock.model_validate(CronSchedule.model_validate(schedule).model_dump())
            [found[entry["name"]]] = asyncio.run(clock.get_dates(n=1, start=MONDAY_NOON))
    assert found == NEXT, "curated every night; audited and asked again for its rights on Sundays, in this order"


@pytest.mark.parametrize(
    ("subject", "is_taken"),
    [
        ("photos.owl3.test", True),
        ("https://photos.owl3.test/a.jpg?size=2#me@home", True),
        ("https://someone:password@photos.owl3.test/a.jpg", False),
        ("https://b.test/a.jpg?x=1&X-Amz-Signature=0a", False),
        ("https://b.test/a.jpg?sv=1&sig=0a", False),
    ],
)
def test_the_form_of_a_retraction_takes_no_url_with_a_credential(subject: str, is_taken: bool) -> None:
    from prefect.utilities.schema_tools.validation import is_valid

    from flows.rights import retract

    given = {"subject": subject, "reason": "asked", "workspace": "w"}
    assert is_valid(given, retract.parameters.model_dump()) is is_taken

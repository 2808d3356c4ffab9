"""Flows about the right to use what was fetched: audit the card, retract samples, ask the servers again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from pydantic import Field, PositiveInt

from flows.steps import DEMO, WORKSPACE, publish_outcomes, take_step
from owl3.cards.retract import assess, bury
from owl3.cards.subjects import What, understand
from owl3.pipeline import Outcome, Place, choose_steps, resolve_from_environment
from owl3.recheck import recheck, record, write_proposal
from owl3.recipe import load_recipe


@flow(name="audit", flow_run_name="audit {recipe.stem}")
def audit(recipe: Path = DEMO, workspace: Path = WORKSPACE) -> list[Outcome]:
    """Derive every figure of the card again from the shards; fails when one of them is false."""
    loaded = load_recipe(recipe)
    place = Place.at(workspace, {})
    outcomes = [take_step(step, loaded, place) for step in choose_steps(loaded, ("audit",), None)]
    publish_outcomes(outcomes, key="audit")
    return outcomes


NO_CREDENTIAL = r"^(?!.*://[^/]*@)(?!.*[?&]([Xx]-[A-Za-z]+-)?[Ss]ig(nature)?=)(?!.*[Tt]oken=).*$"
"""Prefect keeps and shows the parameters of a run, so its form takes no URL that lets its reader in."""


Told = Annotated[str, Field(json_schema_extra={"pattern": NO_CREDENTIAL})]


@flow(name="retract", flow_run_name="retract {what}")
def retract(subject: Told, reason: str, what: What = "url", workspace: Path = WORKSPACE) -> int:
    """Write tombstones for everything that came from `subject`; loaders honour them at once.

    Bytes and words go by `owl3 retract … --yes --purge`. Prefect keeps the parameters of a run: where the subject tells
    of somebody, delete the run there afterwards.

    Args:
        subject: A URL, domain, licence, sha256 or sample id.
        reason: Why; it stands in the tombstones.
        what: Which of these `subject` is.
        workspace: Folder that holds all artifacts.
    """
    impact = assess(workspace, [understand(subject, what)], workspace / "datacards")
    buried = bury(workspace, impact, reason)
    create_markdown_artifact(
        f"{buried} new tombstones; hit: {impact.urls_kept} kept rows, {impact.built} built samples, "
        f"{len(impact.plans)} plans, {len(impact.checkpoints)} checkpoints, {len(impact.cards)} cards.",
        key="retraction",
        description=reason,
    )
    return buried


@flow(name="rights-recheck", flow_run_name="rights-recheck {workspace}")
def rights_recheck(workspace: Path = WORKSPACE, per_host: PositiveInt = 2) -> int:
    """Ask the hosts of kept pictures for their rights again; new opt-outs become a proposal, and nothing is taken out.

    Args:
        workspace: Folder that holds all artifacts.
        per_host: URLs asked of every host; of a host that refuses one, all are asked.
    """
    found = recheck(workspace, per_host=per_host, resolve=resolve_from_environment())
    proposal = workspace / "rights" / "proposal.txt"
    write_proposal(proposal, found)
    record(workspace, found)
    create_markdown_artifact(
        f"{len(found.opt_outs)} new reservations of rights. Read {proposal}, then: "
        f"`owl3 retract --list {proposal} --reason … --yes`",
        key="rights-recheck",
    )
    return len(found.opt_outs)

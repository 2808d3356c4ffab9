"""The part of an audit that is about models: plans derived again from the sample ids, figures from plans and runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from owl3.cards.chain import Link
from owl3.cards.documents_check import first_difference
from owl3.cards.findings import Check, Findings, compared, failed, passed
from owl3.cards.model_card import DOCUMENTS, ModelFacts, documents
from owl3.cards.model_figures import model_figures
from owl3.config import load_yaml
from owl3.errors import Owl3Error
from owl3.idhash import chain_digest, fingerprints, id_words
from owl3.manifest import Manifest
from owl3.planfile import Plan, PlannedDataset
from owl3.sampleindex import index_folder, kept_rows

STEPS_AT_ONCE = 1000


def check_plans(links: list[Link], workspace: Path, findings: Findings) -> None:
    """Derive the fingerprint of every step from the ids of its samples, and the prefix digests from these."""
    for link in links:
        if link.stated.kind != "plan" or link.folder is None or link.manifest is None:
            continue
        subject = f"plan {link.stated.name}"
        try:
            findings.summarise("plans", subject, _plan_problems(link.folder, workspace), "every step's samples")
        except (Owl3Error, ValueError, IndexError) as error:
            findings.add(failed("plans", subject, "derivable", str(error).splitlines()[0]))


def _plan_problems(folder: Path, workspace: Path) -> list[Check]:
    plan = Plan.open(folder)
    ids = np.concatenate([_ids(workspace, plan, dataset) for dataset in plan.header.datasets])
    size = plan.global_batch_size
    problems: list[Check] = []
    for start in range(0, plan.num_steps, STEPS_AT_ONCE):
        end = min(start + STEPS_AT_ONCE, plan.num_steps)
        order = np.asarray(plan.order[start * size : end * size], dtype=np.int64)
        slots = np.tile(np.arange(size, dtype=np.uint64), end - start)
        found = fingerprints(ids[order], slots).reshape(end - start, size, 2).sum(axis=1, dtype=np.uint64)
        stated = np.asarray(plan.steps["fingerprint"][start:end])
        wrong = np.flatnonzero((found != stated).any(axis=1))
        problems += [
            failed("plans", f"plan {plan.manifest.name} step {start + int(step)}", "its samples in order", "others")
            for step in wrong[:20]
        ]
    digest = ""
    for number, stated_digest in enumerate(plan.header.prefix_digests):
        steps = np.asarray(plan.steps["fingerprint"][number * 100 : (number + 1) * 100])
        digest = chain_digest(digest, steps)
        if digest != stated_digest:
            where = f"plan {plan.manifest.name} steps to {(number + 1) * 100}"
            return [*problems, failed("plans", where, stated_digest, digest)]
    return problems


def _ids(workspace: Path, plan: Plan, dataset: PlannedDataset) -> np.ndarray[Any, Any]:
    """Ids by position of a dataset's samples, and of the parts of those that were split: array (n, 2)."""
    folder = index_folder(workspace, dataset.name, dataset.digest)
    tables = [kept_rows(folder / f"{shard.name}.parquet", ["sample_id"]) for shard in dataset.shards]
    ids = np.concatenate([id_words(table["sample_id"]) for table in tables])
    first = dataset.offset + dataset.num_samples
    parts = [plan.base_of(position) - dataset.offset for position in range(first, first + dataset.num_parts)]
    return np.concatenate([ids, ids[parts]]) if parts else ids


def check_model(folder: Path, manifest: Manifest, workspace: Path, findings: Findings) -> None:
    """Compute every figure of a model card again, and make its documents from them."""
    where = manifest.recipe["model_card"]
    try:
        stated = json.loads((folder / "figures.json").read_bytes())
        facts = load_yaml(folder / "facts.yaml", ModelFacts)
        values = json.loads(json.dumps(model_figures(workspace, str(where["run"]))))
    except (OSError, ValueError, Owl3Error) as error:
        findings.add(failed("figures", "figures.json, facts.yaml", "readable", str(error)))
        return
    findings.add(compared("documents", "facts.yaml", manifest.recipe.get("facts"), facts.model_dump(mode="json")))
    for name in sorted({*stated, *values}):
        findings.add(compared("figures", name, stated.get(name), values.get(name)))
    made = documents(facts, values)
    for name in DOCUMENTS:
        path = folder / name
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        same = text == made[name].decode()
        findings.add(
            passed("documents", name, "as derived") if same else first_difference(name, text, made[name].decode())
        )

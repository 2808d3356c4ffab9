"""The sample order is a promise. When it changes on purpose: `make golden`, and begin the commit with SAMPLE ORDER."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from owl3.data.plan import PlanConfig, make_plan
from owl3.manifest import Counts, write_manifest
from owl3.planfile import Plan
from owl3.samples import short_hash
from owl3.shards import SAMPLE_INDEX, write_index

GOLDEN = Path(__file__).parents[1] / "golden" / "plan"

PLANS = {
    "weights": {
        "mixture": {
            "datasets": [
                {"name": "web", "weight": 70.5, "max_epochs": 4},
                {"name": "pages", "weight": 25, "cut": 0.5, "max_epochs": 4},
                {"name": "clips", "weight": 4.5, "max_samples": 40, "max_epochs": 20},
            ]
        },
        "global_batch_size": 64,
        "steps": 25,
        "max_tokens": 512,
        "max_tiles": 24,
        "seed": 7,
    },
    "sizes": {
        "mixture": {"datasets": [{"name": "web"}, {"name": "pages"}], "temperature": 2, "max_epochs": 3},
        "global_batch_size": 32,
        "epochs": 1.5,
        "max_tokens": 300,
        "max_tiles": 12,
        "shuffle": "groups",
        "shard_group": 2,
        "seed": 1,
    },
}


def write_indexes(workspace: Path, name: str, count: int, per_shard: int) -> None:
    """Indexes with drawn costs and tars of the right size: all that planning reads."""
    folder = workspace / "samples" / name
    rng = np.random.default_rng(count)
    for shard in range(-(-count // per_shard)):
        rows = []
        for position, number in enumerate(range(shard * per_shard, min((shard + 1) * per_shard, count))):
            images = int(rng.integers(1, 9)) if name != "web" else 1
            row = {"sample_id": short_hash(name, str(number)), "decision": "kept", "position": position}
            row |= {"shard": f"{shard:05d}", "text_tokens": int(rng.integers(20, 280)), "trained_tokens": 10}
            row |= {"plain_tokens": 20, "plain_trained_tokens": 10, "cut_tokens": 290, "images": images}
            rows.append(row | {"tiles": [5] * images, "json_offset": 512 + 2048 * position, "json_bytes": 100})
        write_index(folder / f"{shard:05d}.parquet", rows, SAMPLE_INDEX)
        (folder / f"{shard:05d}.tar").write_bytes(bytes(2048 * len(rows)))
    write_manifest(
        folder,
        kind="samples",
        name=name,
        counts=Counts(seen=count, kept=count),
        stats={"tokenizer_digest": "0" * 64, "release": "241101"},
    )


@pytest.mark.parametrize("name", sorted(PLANS))
def test_golden_order(name: str, workspace: Path) -> None:
    for dataset, count in (("web", 700), ("pages", 300), ("clips", 60)):
        write_indexes(workspace, dataset, count, per_shard=100)
    make_plan(PlanConfig.model_validate(PLANS[name]), workspace, run_name=name, stage="golden")
    plan = Plan.open(workspace / "plans" / name / "golden")
    found = {
        "num_steps": plan.num_steps,
        "order_of_first_steps": plan.order[: 2 * plan.global_batch_size].tolist(),
        "rows_of_first_steps": plan.packs[: 2 * plan.global_batch_size].tolist(),
        "digest_of_each_fifth_step": [plan.prefix_digest(step) for step in range(5, plan.num_steps + 1, 5)],
        "rows": len(plan.row_costs),
        "tokens": int(plan.steps["tokens"].sum()),
        "tiles": int(plan.steps["tiles"].sum()),
    }
    golden = GOLDEN / f"{name}.json"
    if os.environ.get("OWL3_WRITE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(golden.read_text())

"""The sample order is a promise. When it changes on purpose: `make golden`, and begin the commit with SAMPLE ORDER."""

import json
import os
from pathlib import Path

import pytest

from owl3.data.plan import PlanConfig, make_plan
from owl3.planfile import Plan
from tests.data.conftest import write_indexes

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

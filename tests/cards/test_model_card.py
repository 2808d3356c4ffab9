"""The model card of a stage: what was really seen, derived from plan and run, and audited like a datacard."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard

from owl3.cards.audit import audit
from owl3.cards.model_card import model_card
from owl3.errors import ConfigError, InputError

from .forge import edit_text, flip_byte, reseal


@pytest.fixture
def rendered(workspace: Path, datacards: Path) -> Path:
    model_card("toy/sft", "demo", workspace, datacards)
    return datacards / "demo" / "models" / "toy-sft"


def test_a_model_has_learned_from_every_stage_before(rendered: Path) -> None:
    figures = json.loads((rendered / "figures.json").read_bytes())
    assert [stage["run"] for stage in figures["stages"]] == ["toy/pretrain", "toy/sft"]
    assert figures["samples_seen"] == 16 + 4
    assert figures["stages"][0]["datasets"][0]["distinct"] == 8
    assert figures["scores"] == [
        {
            "task": "scenes-single",
            "figure": "accuracy",
            "score": 0.75,
            "interval_95": [0.65, 0.85],
            "blind": 0.25,
            "questions": 40,
            "floors": {},
        }
    ]


def test_what_was_dropped_while_loading_was_not_seen(workspace: Path, datacards: Path) -> None:
    table = pa.table({"step": [0, 1], "sample_id": ["a", "b"], "reason": ["tombstoned", "undecodable"]})
    pq.write_table(table, workspace / "runs" / "toy" / "pretrain" / "drops.parquet")
    model_card("toy/sft", "demo", workspace, datacards)
    figures = json.loads((datacards / "demo" / "models" / "toy-sft" / "figures.json").read_bytes())
    assert figures["stages"][0]["samples_seen"] == 14
    assert figures["stages"][0]["dropped"] == {"tombstoned": 1, "undecodable": 1}


def test_the_hub_reads_its_header_and_scores(rendered: Path) -> None:
    loaded = ModelCard.load(rendered / "README.md")
    assert loaded.data.pipeline_tag == "image-text-to-text"
    assert loaded.data.eval_results is not None
    assert loaded.data.eval_results[0].metric_value == 0.75


def test_an_honest_model_card_passes(rendered: Path, workspace: Path) -> None:
    result = audit(rendered, workspace)
    assert result.passed, [check.line() for check in result.checks if not check.passed]
    areas = {check.area for check in result.checks}
    assert {"plans", "chain", "files", "figures", "documents", "rows"} <= areas
    subjects = {check.subject for check in result.checks if check.area == "chain"}
    assert {"run toy/sft", "run toy/pretrain", "plan toy/pretrain", "samples pairs", "source tiny"} <= subjects


def _reorder(workspace: Path, card: Path) -> None:
    path = workspace / "plans" / "toy" / "pretrain" / "order.npy"
    order = np.load(path)
    order[[0, 3]] = order[[3, 0]]
    np.save(path, order)


def _reorder_and_seal(workspace: Path, card: Path) -> None:
    _reorder(workspace, card)
    plan = reseal(workspace / "plans" / "toy" / "pretrain")
    parents = [plan.as_parent().model_dump()]
    first = reseal(workspace / "runs" / "toy" / "pretrain", parents=parents)
    second = json.loads((workspace / "runs" / "toy" / "sft" / "manifest.json").read_bytes())["parents"]
    last = reseal(workspace / "runs" / "toy" / "sft", parents=[second[0], first.as_parent().model_dump()])
    reseal(card, parents=[last.as_parent().model_dump()])


def _drop_a_stage(workspace: Path, card: Path) -> None:
    manifest = json.loads((workspace / "runs" / "toy" / "sft" / "manifest.json").read_bytes())
    reseal(workspace / "runs" / "toy" / "sft", parents=manifest["parents"][:1])


@pytest.mark.parametrize(
    ("corrupt", "expected"),
    [
        (_reorder, "files: plan toy/pretrain order.npy"),
        (_reorder, "plans: plan toy/pretrain step 0"),
        (_reorder_and_seal, "plans: plan toy/pretrain step 0"),
        (_drop_a_stage, "chain: run toy/sft"),
        (lambda w, c: flip_byte(w / "plans" / "toy" / "sft" / "order.npy"), "files: plan toy/sft order.npy"),
        (lambda w, c: edit_text(c / "figures.json", '"score": 0.75', '"score": 0.95'), "figures: scores"),
        (lambda w, c: edit_text(c / "README.md", "0.75", "0.95"), "documents: README.md line"),
        (lambda w, c: flip_byte(c / "model.html"), "documents: model.html"),
        (
            lambda w, c: edit_text(
                next((w / "runs/toy/sft/evals/end").glob("scenes-single-0*")) / "summary.json", "0.75", "0.99"
            ),
            "figures: scores",
        ),
    ],
)  # fmt: skip
def test_a_forged_model_is_found_and_named(
    rendered: Path, workspace: Path, corrupt: Callable[[Path, Path], None], expected: str
) -> None:
    corrupt(workspace, rendered)
    lines = [check.line() for check in audit(rendered, workspace).checks if not check.passed]
    assert any(expected in line for line in lines), "\n".join(lines)


def test_a_run_under_way_has_no_card(workspace: Path, datacards: Path) -> None:
    (workspace / "runs" / "toy" / "sft" / "manifest.json").unlink()
    with pytest.raises(InputError, match="not trained to its end"):
        model_card("toy/sft", "demo", workspace, datacards)


def test_facts_about_the_model_are_asked_for(workspace: Path, datacards: Path) -> None:
    (datacards / "demo" / "model.yaml").unlink()
    with pytest.raises(ConfigError, match=r"model\.yaml: no facts about the model"):
        model_card("toy/sft", "demo", workspace, datacards)

"""Rows by number; what was planned with another tokenizer, tile size or template is refused."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from owl3.data.dataset import PlanDataset
from owl3.errors import ConfigError, InputError
from owl3.planfile import Plan
from owl3.tokens import TextTokenizer, train_tiny
from tests.data.conftest import TILE_PX, MakeSamples
from tests.data.test_loader import write_and_plan
from tests.data.test_plan import config, planned


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory, tokenizer: TextTokenizer) -> Plan:
    return write_and_plan(tmp_path_factory.mktemp("workspace"), tokenizer)


def test_rows_are_reached_by_their_number_in_the_whole_plan(fixed: Plan, tokenizer: TextTokenizer) -> None:
    rows = PlanDataset(fixed, fixed.folder.parents[2], tokenizer, tile_px=TILE_PX)
    assert len(rows) == sum(len(fixed.rows(step)) for step in range(fixed.num_steps))
    number = 0
    for step in range(3):
        for row in range(len(fixed.rows(step))):
            assert (rows[number].step, rows[number].row) == (step, row)
            number += 1
    with pytest.raises(IndexError, match="there is no row"):
        rows[len(rows)]


def test_who_stands_in_a_step_is_worked_out_once(
    fixed: Plan, tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, rows_of = list[int](), Plan.rows
    monkeypatch.setattr(Plan, "rows", lambda plan, step: (asked.append(step), rows_of(plan, step))[1])
    rows = PlanDataset(fixed, fixed.folder.parents[2], tokenizer, tile_px=TILE_PX)
    counts = [len(rows_of(fixed, step)) for step in range(3)]
    assert max(counts) > 1
    for step, count in enumerate(counts):
        for number in range(count):
            rows.row(step, number)
    assert asked == [0, 1, 2]


def test_another_tokenizer_is_refused(fixed: Plan) -> None:
    with pytest.raises(ConfigError, match="use the tokenizer that the samples were built with"):
        PlanDataset(fixed, fixed.folder.parents[2], train_tiny(["other words"] * 3, 400), tile_px=TILE_PX)


def test_samples_costed_otherwise_are_named(
    workspace: Path, make_samples: MakeSamples, tokenizer: TextTokenizer
) -> None:
    make_samples("photos", 16)
    index = workspace / "samples" / "photos" / "00000.parquet"
    table = pq.read_table(index)
    wrong = pa.compute.add(table["text_tokens"], 1)
    pq.write_table(table.set_column(table.column_names.index("text_tokens"), "text_tokens", wrong), index)
    plan = planned(workspace, config("photos", steps=2))
    rows = PlanDataset(plan, workspace, tokenizer, tile_px=TILE_PX)
    with pytest.raises(InputError, match=r"samples/photos/00000\.tar:[0-9a-f]+: has \d+ text tokens, its index says"):
        [rows[number] for number in range(len(rows))]


def test_tiles_of_another_size_are_refused(
    workspace: Path, make_samples: MakeSamples, tokenizer: TextTokenizer
) -> None:
    make_samples("photos", 16)
    mixture = {"datasets": [{"name": "photos", "cut": 0.5}]}
    plan = planned(workspace, config(mixture=mixture, steps=2, max_tokens=300, max_tiles=30))
    with pytest.raises(ConfigError, match="costed for tiles of 28 px, the model's are 56 px"):
        PlanDataset(plan, workspace, tokenizer, tile_px=56)

"""The training benchmark: the world it trains in, and what it says of the disk."""

from pathlib import Path

from owl3.bench.train import TARGETS, _real_share, _write_table
from owl3.bench.train_disk import checkpoint_rates
from owl3.bench.train_world import bench_recipe, make_world
from owl3.data.plan import make_plan
from owl3.manifest import read_manifest


def test_its_packed_rows_hold_few_columns_that_are_not_tokens(tmp_path: Path) -> None:
    make_world(tmp_path)
    before = read_manifest(tmp_path / "samples" / "pairs")
    make_world(tmp_path)  # a second call finds it there
    assert read_manifest(tmp_path / "samples" / "pairs") == before
    recipe = bench_recipe("torch", "torch", 1)
    make_plan(recipe.stages[0].data, tmp_path, run_name="torch", stage="pretrain")
    assert 0.9 < _real_share(recipe, tmp_path) <= 1


def test_rates_of_checkpoints_are_told_beside_the_bare_disks(tmp_path: Path) -> None:
    rates = checkpoint_rates(tmp_path / "disk", layers=2)
    assert all(rate > 0 for rate in rates.values())
    assert not (tmp_path / "disk").exists()


def test_the_table_says_of_each_ratio_whether_its_target_was_met(tmp_path: Path) -> None:
    result = {
        "ratios": {**dict.fromkeys(TARGETS, 0.5), "loop / bare loop": 1.1},
        "seconds_per_step": {"bare": [0.1, 0.2]},
        "checkpoint_bytes_per_s": {"save": 1e8},
        "mfu": None,
    }
    _write_table(tmp_path / "train.md", result)
    text = (tmp_path / "train.md").read_text()
    assert "| data wait | 0.5 | ≤ 0.05 | **no** |" in text
    assert "| resume: seconds to the first step beyond imports | 0.5 | ≤ 10 | yes |" in text
    assert "| loop / bare loop | 1.1 |  |  |" in text
    assert "| bare | 0.1500 | 0.1000, 0.2000 |" in text
    assert "| save | 100 |" in text
    assert "`owl3 bench train` on" in text
    assert "FLOPs" not in text

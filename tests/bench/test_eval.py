"""The evaluation benchmark compares like with like: same answers, fewer encodings."""

import json
from pathlib import Path

from owl3.bench import eval as bench
from owl3.eval.evaluate import Ask
from owl3.eval.media import ReadAhead


def test_options_that_share_a_picture_encode_it_once(tmp_path: Path) -> None:
    generator = bench._generator()
    shown = [one for batch in ReadAhead([bench._items(tmp_path, 3)]) for one in batch]
    shared = bench.encoded_pictures(generator, lambda: generator.answer(shown, Ask(choose=True)))
    apart = bench.encoded_pictures(
        generator, lambda: [[generator.likelihoods(one, [option]) for option in bench.OPTIONS] for one in shown]
    )
    assert (shared, apart) == (3, 3 * len(bench.OPTIONS))


def test_a_short_run_writes_figures_and_table(tmp_path: Path) -> None:
    result = bench.run(tmp_path, samples=4, batch_size=4, rounds=1)
    assert json.loads((tmp_path / "eval.json").read_text()) == result
    assert result["encodings_per_picture"] == {"choices_shared": 1.0, "choices_apart": len(bench.OPTIONS)}
    assert 0 <= result["waited_for_data_share"] <= 1
    assert "| batched / one by one |" in (tmp_path / "eval.md").read_text()

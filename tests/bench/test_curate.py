"""The curation benchmark: what it makes of the runs that it times."""

import pytest

from owl3.bench.curate import figures
from owl3.bench.curate_contest import KINDS, Taken, summary


def test_a_few_pictures_tell_what_start_and_end_take() -> None:
    run = Taken(images=1020, wall_s=10.2, cpu_s=12.0).without(Taken(images=20, wall_s=3.0, cpu_s=5.0))
    assert run.images_per_s == pytest.approx(100)
    assert (run.cpu_ms, run.steady_cpu_ms) == (pytest.approx(11.76, abs=0.01), pytest.approx(7))


def test_the_table_says_what_was_served_and_which_bars_were_met() -> None:
    taken = summary([Taken(100, 1.0, 1.0, few=Taken(0, 0.0, 0.0))])
    ratios = {"speed_ratio": 0.93, "cpu_ratio": 0.8, "steady_cpu_ratio": 0.7}
    fetch = dict.fromkeys(KINDS, taken | ratios) | {"owl3_alone": taken | ratios | {"cpu_ratio": 0.45}}
    rows = figures({"corpus": "photos", "mean_bytes": 93_000, "image_size": 384, "fetch": fetch})
    assert rows[0].what == "images/s over img2dataset's, photos of 93 kB to 384 px"
    assert [row.what for row in rows if row.is_met is False] == [
        "CPU per stored image over img2dataset's default, photos of 93 kB to 384 px"
    ]

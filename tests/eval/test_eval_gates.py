import pytest

from owl3.errors import ConfigError
from owl3.eval.gates import Figures, judge, parse_gate

NOW: Figures = {"pope": {"f1": 0.80}, "scenes-single": {"accuracy": 0.60}}
BLIND: Figures = {"scenes-single": {"accuracy": 0.20}}
BEFORE: Figures = {"pope": {"f1": 0.82}}


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("pope.f1 >= 0.80", True),
        ("pope.f1 > 0.80", False),
        ("pope.f1 >= previous - 0.02", True),
        ("pope.f1 >= previous - 0.01", False),
        ("scenes-single.accuracy >= 2 * blind", True),
        ("scenes-single.accuracy >= 2 * blind + 0.25", False),
        ("scenes-single.accuracy >= previous", None),
        ("mvbench.accuracy >= 0.1", False),
        ("pope.f1 >= 2 * blind", False),
    ],
)
def test_a_gate_compares_with_a_number_the_stage_before_or_the_blind_run(text: str, passed: bool | None) -> None:
    verdict = judge(parse_gate(text), NOW, blind=BLIND, previous=BEFORE)
    assert verdict.passed is passed
    assert text in verdict.line()


@pytest.mark.parametrize("text", ["", "pope >= 0.8", "pope.f1 == 0.8", "pope.f1 >= last", "pope.f1 >= 0.8 or so"])
def test_a_gate_that_cannot_be_read_says_how_to_write_one(text: str) -> None:
    with pytest.raises(ConfigError, match="write it as"):
        parse_gate(text)

"""Our metrics print what the official scorers print, on real predictions for real annotations."""

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from owl3.eval.items import Item, Record
from owl3.eval.metrics import choice, gqa, nextqa, nlvr2, pope
from owl3.eval.metrics.vqa import Rule, merged_vqa_accuracy, vqa_accuracy
from owl3.eval.registry import find_task

pytestmark = pytest.mark.shared
Find = Callable[[str], Path]


@pytest.fixture
def reference(shared_data: Find) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(shared_data("data/reference_scores.json").read_text())
    return data


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def record(name: str, score: float, category: str = "", gold: str = "", **meta: object) -> Record:
    return Record(name, name, category, "", "", None, "strict", (gold,), score, meta=meta)


def annotators(shared_data: Find, name: str) -> dict[Any, list[str]]:
    rows = json.loads(shared_data(f"data/eval_{name}/val_annotations_vqa_format.json").read_text())["annotations"]
    return {row["question_id"]: [person["answer"] for person in row["answers"]] for row in rows}


def whole_entries(shared_data: Find, name: str) -> list[list[tuple[str, ...]]]:
    rows = json.loads(shared_data(f"data/eval_{name}/val_annotations_vqa_format.json").read_text())["annotations"]
    return [[(person["answer"], person["answer_confidence"]) for person in row["answers"]] for row in rows]


@pytest.mark.parametrize(
    ("key", "model", "rule", "lower"),
    [
        ("vqaEval_official", "llava", "official", False),
        ("vqaEval_official", "vila", "official", False),
        ("vqaEval_official_lowercased", "llava", "official", True),
        ("vqaEval_official_lowercased", "vila", "official", True),
        ("m4c_official", "llava", "evalai", False),
        ("m4c_official", "vila", "evalai", False),
        ("mplug_owl3_vqa_eval", "llava", "paper", False),
        ("mplug_owl3_vqa_eval", "vila", "paper", False),
    ],
)
def test_textvqa(shared_data: Find, reference: dict[str, Any], key: str, model: str, rule: Rule, lower: bool) -> None:
    people = annotators(shared_data, "textvqa")
    file = {"llava": "pred_llava-v1.5-13b.jsonl", "vila": "pred_vila-13b.jsonl"}[model]
    said = [row.get("text", row.get("answer")) for row in lines(shared_data(f"data/eval_textvqa/{file}"))]
    assert len(said) == len(people) == reference["textvqa"]["n"]
    scores = [
        vqa_accuracy(answer.lower() if lower else answer, group, rule)
        for answer, group in zip(said, people.values(), strict=True)
    ]
    want = reference["textvqa"][f"{model}13b_{key}"]
    digits = 2 if "vqa" in key.lower() else 9
    assert round(100 * mean(scores), digits) == round(want, digits)


def test_vizwiz(shared_data: Find, reference: dict[str, Any]) -> None:
    people = annotators(shared_data, "vizwiz").values()
    entries = whole_entries(shared_data, "vizwiz")
    want = reference["vizwiz"]
    evalai = 100 * mean(vqa_accuracy("unanswerable", group, "evalai") for group in people)
    official = 100 * mean(vqa_accuracy("unanswerable", group) for group in people)
    merged = 100 * mean(merged_vqa_accuracy("unanswerable", group) for group in entries)
    assert evalai == pytest.approx(want["constant_unanswerable_m4c"], abs=1e-9)
    assert round(official, 2) == want["constant_unanswerable_vqaEval_answer_id_added"]
    as_is = "constant_unanswerable_vqaEval_as_is(no answer_id: identical annotators collapse)"
    assert round(merged, 2) == want[as_is]


def test_gqa_by_type(shared_data: Find, reference: dict[str, Any]) -> None:
    questions = json.loads(shared_data("data/eval_gqa/testdev_balanced_subset_en.json").read_text())
    said = {row["question_id"]: row["text"] for row in lines(shared_data("data/eval_gqa/pred_llava-v1.5-13b.jsonl"))}
    records = [
        record(key, float(gqa.normalise(said[key]) == row["answer"]), row["types"]["structural"], row["answer"])
        for key, row in questions.items()
    ]
    figures = gqa.aggregate(records)
    want = reference["gqa"]
    assert 100 * figures["accuracy"] == pytest.approx(want["llava13b_exact"], abs=1e-9)
    counts = Counter(row["types"]["structural"] for row in questions.values())
    for kind in ("choose", "compare", "logical", "query", "verify"):
        accuracy, count = want[f"structural:{kind}"]
        assert counts[kind] == count
        assert 100 * figures[f"structural_{kind}"] == pytest.approx(accuracy, abs=1e-9)
    for kind in ("binary", "open"):
        assert 100 * figures[kind] == pytest.approx(want[kind][0], abs=1e-9), kind


@pytest.mark.parametrize("split", ["random", "popular", "adversarial"])
def test_pope(shared_data: Find, reference: dict[str, Any], split: str) -> None:
    truth = [row["label"] for row in lines(shared_data(f"data/eval_pope/coco_pope_{split}.json"))]
    raw = [row["answer"] for row in lines(shared_data(f"data/eval_pope/pred_llava-v1.5-13b_{split}.jsonl"))]
    counts = pope.confusion([pope.official_answer(answer) for answer in raw], truth)
    want = reference["pope_llava13b"][split]
    assert counts == {key: want[key] for key in ("TP", "FP", "TN", "FN")}
    assert pope.scores(counts) == {
        "f1": want["f1"],
        "accuracy": want["acc"],
        "precision": want["precision"],
        "recall": want["recall"],
        "yes_ratio": want["yes_ratio"],
    }


def test_nlvr2_with_consistency(shared_data: Find, reference: dict[str, Any]) -> None:
    truth = {row["identifier"]: row["label"] for row in lines(shared_data("data/eval_nlvr2/dev.subset.json"))}
    with shared_data("data/eval_nlvr2/synthetic_predictions.csv").open() as rows:
        said = dict(csv.reader(rows))
    figures = nlvr2.aggregate([record(key, float(said[key] == label)) for key, label in truth.items()])
    want = dict(line.split("=") for line in reference["nlvr2_synthetic_preds"]["official"])
    assert {key: str(value) for key, value in figures.items()} == want


def test_nextqa_by_type(shared_data: Find, reference: dict[str, Any]) -> None:
    said = json.loads(shared_data("data/eval_nextqa/pred_HGA.json").read_text())
    with shared_data("data/eval_nextqa/val.csv").open() as rows:
        questions = list(csv.DictReader(rows))
    records = [
        record(key, float(said[key]["prediction"] == int(row["answer"])), row["type"])
        for row in questions
        for key in [f"{row['video']}_{row['qid']}"]
    ]
    figures = nextqa.aggregate(records)
    names = [*nextqa.NAMES.values(), *nextqa.GROUPS.values()]
    printed = "".join(f"{100 * figures[f'accuracy_{name}']:.2f}\t" for name in names)
    official = reference["nextqa_HGA"]["official"]
    assert len(records) == reference["nextqa_HGA"]["n"]
    assert printed == official[2]
    assert f"Acc: {100 * figures['accuracy']:.2f}" == official[3]


@pytest.mark.parametrize("model", ["GPT4o", "llava_v1.5_13b", "QwenVLMax"])
def test_blink_total(shared_data: Find, reference: dict[str, Any], model: str) -> None:
    truth = json.loads(shared_data("data/eval_blink/val_answers.json").read_text())
    said = {row["idx"]: row["prediction"] for row in lines(shared_data(f"data/eval_blink/saved_outputs_{model}.jsonl"))}
    records = [
        record(key, float(said[key] == answer), key.removeprefix("val_").rsplit("_", 1)[0])
        for key, answer in truth.items()
    ]
    figures = choice.mean_over_categories(records)
    want = reference["blink_val"][model]
    assert figures["mean_over_categories"] == pytest.approx(want["mean_over_subtasks"], abs=1e-12)
    assert figures["accuracy"] == pytest.approx(want["micro"], abs=1e-12)


def test_ccbench_circular(shared_data: Find, reference: dict[str, Any]) -> None:
    rows = lines(shared_data("data/eval_ccbench/vila13b_circular_predictions.jsonl"))
    verdicts = {row["index"]: row for row in lines(shared_data("data/eval_ccbench/vlmevalkit_circular_result.jsonl"))}
    by_question: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_question[row["index"] % 1_000_000].append(row)
    outcomes: Counter[str] = Counter()
    records = []
    for key, passes in by_question.items():
        letters = [choice.matched_letter(row["prediction"], [row[letter] for letter in "ABCD"]) for row in passes]
        wrong = any(letter not in (None, row["answer"]) for letter, row in zip(letters, passes, strict=True))
        open_ = None in letters and not wrong
        outcomes["judge" if open_ else "miss" if wrong else "hit"] += 1
        if not open_:  # one question of 162 went to a judge, which the rule alone cannot repeat
            assert verdicts[key]["hit"] == (not wrong), verdicts[key]["log"]
        records += [
            record(f"{key}-{i}", float(letter == row["answer"]), row["category"], question=key)
            for i, (letter, row) in enumerate(zip(letters, passes, strict=True))
        ]
    want = reference["ccbench_vila13b_circular"]
    assert outcomes == {
        "hit": want["hits_by_prefetch_rule"],
        "miss": want["misses_by_prefetch_rule"],
        "judge": want["needed_a_judge"],
    }
    figures = choice.circular_by_category(records)
    assert figures["circular_accuracy"] == pytest.approx(want["vlmevalkit_circular_acc"], abs=1e-12)
    for name, accuracy in want["by_category"].items():
        assert figures[f"circular_accuracy_{name}"] == pytest.approx(accuracy, abs=1e-12)


def test_our_passes_are_those_that_mmbench_publishes(shared_data: Find) -> None:
    """Its server knows an answer by the number of the pass: rotated the other way, every second pass would be wrong."""
    with shared_data("data/eval_ccbench/CCBench_circular.tsv").open(newline="") as rows:
        published = {int(row["index"]): row for row in csv.DictReader(rows, delimiter="\t")}
    questions = [key for key in published if key < 1_000_000]
    assert len(questions) == 162
    for key in questions:
        passes = [published[key + 1_000_000 * number] for number in range(4)]
        shown = [tuple(row[letter] for letter in "ABCD") for row in passes]
        ours = choice.rotations(shown[0], "ABCD".index(passes[0]["answer"]))
        assert ours == list(zip(shown, ("ABCD".index(row["answer"]) for row in passes), strict=True))


@pytest.mark.parametrize("name", ["vqav2", "okvqa"])
def test_a_capital_letter_costs_nothing_where_all_annotators_agree(name: str) -> None:
    """The official rule normalises only where they differ; the released evaluation normalises what it submits."""
    asked = Item("1", ("what?",), ("yes",) * 10)
    assert vqa_accuracy("Yes.", asked.answers, "official") == 0.0
    record = find_task(name).record(asked, "Yes.")
    assert (record.answer, record.score) == ("yes", 1.0)

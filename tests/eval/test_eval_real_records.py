"""Every task reads its benchmark's real records: prompts as released, gold answers, media, and answers parsed."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from owl3.errors import InputError
from owl3.eval.evaluate import load_items
from owl3.eval.items import Item
from owl3.eval.media import open_medium, show
from owl3.eval.registry import find_task, task_names
from owl3.eval.results import summarise

pytestmark = pytest.mark.shared
Find = Callable[[str], Path]
LETTER = "Answer with the option’s letter from the given choices directly."


def items_of(name: str, folder: Path) -> list[Item]:
    return list(load_items(find_task(name), folder))


@pytest.mark.parametrize(
    ("name", "folder", "count", "prompt", "gold"),
    [
        (
            "pope",
            "eval_pope",
            2658,
            "<image>Is there a tv in the image? Answer the question using a single word or phrase.",
            ("yes",),
        ),
        (
            "textvqa",
            "eval_textvqa",
            1258,
            "<image>what does the small white text spell? Answer the question using a single word or phrase.",
            None,
        ),
        (
            "vizwiz",
            "eval_vizwiz",
            1079,
            "<image>What is the title of this book?  When the provided information is insufficient, respond with "
            "'Unanswerable'. Answer the question using a single word or phrase.",
            None,
        ),
        (
            "gqa",
            "eval_gqa",
            1490,
            "<image>Does the utensil on top of the table look clean and black? Answer the question using a single word "
            "or phrase.",
            ("no",),
        ),
        (
            "nlvr2",
            "eval_nlvr2",
            899,
            "Left image: <image> Right image: <image>\nA woman and bald man are wearing gloves together in at least "
            "one of the images.\nyes or no? Answer the question using a single word.",
            ("no",),
        ),
        (
            "nextqa",
            "eval_nextqa",
            1486,
            "<video>\nQuestion: how do the two man play the instrument\nOptions: A. roll the handle\n"
            f"B. tap their feet\nC. strum the string\nD. hit with sticks\nE. pat with hand\n{LETTER}",
            ("A",),
        ),
        (
            "ccbench",
            "eval_ccbench",
            648,
            "<image>Context: N/A\nQuestion: 图中所示建筑名称为？\nOptions: A. 天坛\nB. 故宫\nC. 黄鹤楼\n"
            f"D. 少林寺\n{LETTER}",
            ("A",),
        ),
        (
            "videomme",
            "eval_videomme",
            120,
            "<video>\nQuestion: In the video, what mode of transportation does the protagonist use to commute to "
            f"school?\nOptions: A. Walking.\nB. Biking.\nC. Skateboarding.\nD. Driving.\n{LETTER}",
            ("C",),
        ),
        ("mvbench", "eval_mvbench", 300, None, None),
        ("longvideobench", "eval_longvideobench", 6, None, ("B",)),
    ],
)
def test_real_records_become_the_released_prompts(
    shared_data: Find, name: str, folder: str, count: int, prompt: str | None, gold: tuple[str, ...] | None
) -> None:
    items = items_of(name, shared_data(f"data/{folder}"))
    assert len(items) == count
    if prompt is not None:
        assert items[0].text() == prompt
    if gold is not None:
        assert items[0].answers == gold
    assert all(item.answers and item.media() for item in items)


def test_video_tasks_ask_for_the_paper_s_number_of_frames(shared_data: Find) -> None:
    wanted = {"nextqa": 8, "mvbench": 16, "longvideobench": 64, "videomme": 128}
    for name, frames in wanted.items():
        items = items_of(name, shared_data(f"data/eval_{name}"))
        assert {medium.num_frames for item in items for medium in item.media()} == {frames}, name


def test_mvbench_has_its_twenty_tasks(shared_data: Find) -> None:
    counts = Counter(item.category for item in items_of("mvbench", shared_data("data/eval_mvbench")))
    assert len(counts) == 20
    assert set(counts.values()) == {15}


def test_mmbench_pictures_stand_in_the_table_and_options_are_rotated(shared_data: Find, tmp_path: Path) -> None:
    for name, file in (("mmbench-en", "MMBench_EN_samples.tsv"), ("mmbench-cn", "MMBench_CN_samples.tsv")):
        shutil.copy(shared_data(f"data/eval_mmbench/{file}"), tmp_path / file)
        items = items_of(name, tmp_path)
        questions = {item.meta["question"]: item for item in items}
        assert len(questions) == 20
        for question, last in questions.items():
            passes = [item for item in items if item.meta["question"] == question]
            assert len(passes) == len(last.options)
            right = {item.options["ABCD".index(item.answers[0])] for item in passes}
            assert len(right) == 1  # the same option is right in every pass
            assert {item.answers[0] for item in passes} == set("ABCD"[: len(passes)])
        (picture,) = open_medium(items[0].media()[0])
        assert min(picture.size) > 20


def test_pope_questions_whose_photo_is_here_can_be_put(shared_data: Find, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in shared_data("data/eval_pope/with_local_images.jsonl").read_text().splitlines()]
    (tmp_path / "images").mkdir()
    for row in rows:
        shutil.copy(shared_data(f"data/{row['local_image']}"), tmp_path / "images" / row["image"])
    (tmp_path / "coco_pope_random.json").write_text("\n".join(json.dumps(r) for r in rows if r["category"] == "random"))
    for item in items_of("pope", tmp_path):
        shown = show(item)
        assert shown.error is None
        assert len(shown.pictures) == 1


def test_nextqa_and_mvbench_videos_that_are_absent_are_named_not_scored(shared_data: Find) -> None:
    item = items_of("nextqa", shared_data("data/eval_nextqa"))[0]
    assert show(item).error == "media_missing: 4010069381"


def test_a_real_clip_gives_as_many_frames_as_asked(shared_data: Find) -> None:
    from owl3.eval.items import Medium

    clip = next(iter(sorted(shared_data("data/videos/mantis_videochat").glob("**/*.mp4"))))
    frames = open_medium(Medium(clip, num_frames=8))
    assert len(frames) == 8
    part = open_medium(Medium(clip, num_frames=200, start_s=1.0, end_s=2.0))
    assert len(part) == 200  # more than there are: some are shown twice


def test_real_free_text_answers_are_read_as_often_as_the_released_rule_reads_them(shared_data: Find) -> None:
    """VILA's Chinese answers to CCBench: our reader decides at least what VLMEvalKit's rule decides, and agrees."""
    from owl3.eval.metrics.choice import matched_letter
    from owl3.eval.parsing import parse_letter

    lines = shared_data("data/eval_ccbench/vila13b_circular_predictions.jsonl").read_text().splitlines()
    agreed = decided = 0
    for row in map(json.loads, lines):
        options = [row[letter] for letter in "ABCD"]
        theirs = matched_letter(row["prediction"], options)
        if theirs in ("A", "B", "C", "D"):
            decided += 1
            agreed += parse_letter(row["prediction"], options).answer == theirs
    assert decided > 500
    assert agreed / decided > 0.97


def test_llava_s_answers_to_pope_are_read_strictly(shared_data: Find) -> None:
    task = find_task("pope")
    items = items_of("pope", shared_data("data/eval_pope"))
    raw = {}
    for split in ("random", "popular", "adversarial"):
        for line in shared_data(f"data/eval_pope/pred_llava-v1.5-13b_{split}.jsonl").read_text().splitlines():
            row = json.loads(line)
            raw[f"{split}-{row['question_id']}"] = row["answer"]
    summary = summarise(task, items, [task.record(item, raw[item.id]) for item in items])
    want = json.loads(shared_data("data/reference_scores.json").read_text())["pope_llava13b"]
    for split, scores in want.items():
        assert summary["figures"][f"f1_{split}"] == pytest.approx(scores["f1"], abs=1e-6)
    assert summary["parsed"]["strict"] > 0.99
    assert summary["interval_95"]["low"] < summary["figures"]["f1"] < summary["interval_95"]["high"]
    # In F1, the figure that stands for POPE: a coin gives one half, and always saying yes two thirds.
    assert summary["floors"] == {"random": pytest.approx(0.5, abs=0.02), "majority": pytest.approx(2 / 3, abs=0.01)}


def test_a_benchmark_s_folder_without_its_files_says_what_was_looked_for(tmp_path: Path) -> None:
    for name in task_names():
        with pytest.raises(InputError, match=r"no file like|missing"):
            load_items(find_task(name), tmp_path)


def test_an_answer_beyond_the_options_is_refused_by_name(shared_data: Find, tmp_path: Path) -> None:
    text = shared_data("data/eval_nextqa/val.csv").read_text().splitlines()
    row = text[1].split(",")
    row[5] = "7"
    (tmp_path / "val.csv").write_text("\n".join([text[0], ",".join(row)]))
    with pytest.raises(InputError, match=r"4010069381_6: the answer 7 is none of its 5 options"):
        load_items(find_task("nextqa"), tmp_path)

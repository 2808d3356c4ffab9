import json
from collections import Counter
from pathlib import Path

import pytest

from owl3.errors import InputError
from owl3.eval.distractor import aggregate, distract, numbered_prompt
from owl3.eval.evaluate import batches_of, num_pictures
from owl3.eval.items import Item, Medium, Parsed
from owl3.eval.registry import find_task
from owl3.eval.task import Task


def items(count: int, passes: int = 1) -> list[Item]:
    return [
        Item(
            f"q{i}-{p}",
            (Medium(Path(f"{i}.jpg")), "which?"),
            ("A",),
            ("x", "y"),
            group=f"p{i}",
            meta={"question": f"q{i}"},
        )
        for i in range(count)
        for p in range(passes)
    ]


def test_the_prompt_is_the_paper_s() -> None:
    media = [Medium(Path(name)) for name in ("a.jpg", "b.jpg", "c.jpg")]
    text = Item("q", numbered_prompt(media, 2, "what is it?")).text()
    assert text == "Image 1: <image> Image 2: <image> Image 3: <image>. In Image 2, what is it?"
    with pytest.raises(ValueError, match="Image 4 is not among 3"):
        numbered_prompt(media, 4, "?")


def test_the_true_picture_stands_at_the_place_that_is_named_among_other_pictures() -> None:
    for item in distract(items(20), (1, 5, 10)):
        names = [medium.name() for medium in item.media()]
        true = f"{item.meta['question'][1:]}.jpg"
        assert len(names) == len(set(names)) == int(item.category)
        assert item.text().endswith(f"In Image {names.index(true) + 1}, which?")


def test_a_picture_that_two_questions_share_is_no_distractor_of_either() -> None:
    """MMBench repeats a picture under each question about it; by bytes it is one."""
    asked = [
        Item(f"q{i}", (Medium(data=b"picture %d" % (i // 2)), "which?"), ("A",), ("x", "y"), group=f"q{i}")
        for i in range(12)
    ]
    found = distract(asked, (6, 12))
    assert {item.category for item in found} == {"6"}  # twelve questions, but six pictures
    assert all(len(set(item.media())) == 6 for item in found)


def test_draws_depend_on_no_order_and_places_are_spread() -> None:
    forward = {item.id: item for item in distract(items(60), (8,), num_sets=2)}
    backward = {item.id: item for item in distract(items(60)[::-1], (8,), num_sets=2)}
    places = Counter(forward[name].text().split("In Image ")[1][0] for name in forward)
    assert len(places) == 8
    assert {name: i.text() for name, i in forward.items()} == {name: i.text() for name, i in backward.items()}
    assert all(forward[f"q{i}-0/8/0"].media() != forward[f"q{i}-0/8/1"].media() for i in range(60))


def test_more_pictures_than_there_are_is_left_out() -> None:
    assert {item.category for item in distract(items(6), (1, 5, 10, 400))} == {"1", "5"}


def test_every_pass_must_be_right_to_count() -> None:
    asked = distract(items(4, passes=2), (1, 2))
    task = Task("t", "1", load=lambda _: asked, parse=lambda _, raw: Parsed(raw, "strict"))
    records = [task.record(item, "B" if item.id == "q0-1/2/0" else "A") for item in asked]
    figures = aggregate(records)
    assert figures["circular_accuracy_1"] == 1.0
    assert figures["circular_accuracy_2"] == 0.75
    assert figures["accuracy_2"] == 0.875


def test_a_needle_stands_as_deep_as_it_is_asked_to() -> None:
    for item in distract(items(20), (5, 9), depths=(0.0, 0.5, 1.0)):
        number, depth = item.category.split("@")
        names = [medium.name() for medium in item.media()]
        assert names.index(f"{item.meta['question'][1:]}.jpg") == round(float(depth) * (int(number) - 1))


def test_questions_about_several_pictures_are_refused() -> None:
    pair = Item("q", (Medium(Path("a")), Medium(Path("b")), "?"))
    with pytest.raises(InputError, match="about one picture"):
        distract([pair], (5,))


def test_a_batch_holds_no_more_pictures_than_memory_does() -> None:
    asked = distract(items(40), (1, 10, 40))
    batches = batches_of(asked, 16, max_pictures=50)
    assert sorted(item.id for batch in batches for item in batch) == sorted(item.id for item in asked)
    assert all(len(batch) <= 16 for batch in batches)
    assert all(sum(map(num_pictures, batch)) <= 50 for batch in batches)


def test_a_scene_is_hidden_among_pictures_that_answer_the_question_too(tmp_path: Path) -> None:
    rows = [("one", "What colour is the shape?", True)] * 3 + [
        ("one", "Where is the star?", False),
        ("word", "?", True),
    ]
    lines = [
        {"id": f"q{i}", "media": [f"{i}.jpg"], "question": asked, "answer": "red", "options": ["red"], "group": f"{i}"}
        | {"kind": kind, "alike": alike}
        for i, (kind, asked, alike) in enumerate(rows)
    ]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = find_task("distractor-scenes").load(tmp_path)
    assert {item.question() for item in found} == {"q0", "q1", "q2", "q4"}
    assert {item.category for item in found if item.question() == "q0"} == {"1", "2", "4"}
    assert {item.category for item in found if item.question() == "q4"} == {"1"}  # the only sign
    among = {medium.name() for item in found if item.question() == "q0" for medium in item.media()}
    assert among == {"0.jpg", "1.jpg", "2.jpg", "3.jpg"}
    cells = {item.category for item in find_task("needle-scenes").load(tmp_path)}
    assert cells == {f"4@{depth:g}" for depth in (0, 0.25, 0.5, 0.75, 1)}
    (tmp_path / "questions.jsonl").write_text(json.dumps(lines[3]) + "\n")
    with pytest.raises(InputError, match="no question there is marked `alike`"):
        find_task("distractor-scenes").load(tmp_path)

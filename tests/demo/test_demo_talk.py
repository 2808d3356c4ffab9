"""Questions have one right answer, and guessing gets little."""

from collections import Counter

import numpy as np
import pytest

from owl3.demo import clips, talk
from owl3.demo.conversations import without_hints
from owl3.demo.scenes import KINDS, Scene, Thing, random_scene


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_is_an_option_and_no_question_of_a_scene_has_two_answers(kind: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        asked = talk.questions(random_scene(kind, rng))
        assert all(question.answer in talk.OPTIONS[question.topic] for question in asked)
        assert len({question.text for question in asked}) == len(asked)


def test_captions_tell_all_that_is_on_the_picture() -> None:
    scene = Scene("pair", (Thing("star", "red", "left"), Thing("ring", "orange", "right")), seed=0)
    for caption in talk.captions(scene):
        assert {"red", "star", "left", "orange", "ring", "right"} <= set(caption.replace(",", "").split())
    three = Scene("count", (Thing("cross", "blue"),) * 3, seed=0)
    assert "three blue crosses" in talk.captions(three)


@pytest.mark.parametrize(("earlier", "later"), [("red", "star"), ("star", "red"), ("left", "star"), ("star", "left")])
def test_each_attribute_is_named_before_each_other_in_some_wording(earlier: str, later: str) -> None:
    for kind, others in (("one", ()), ("pair", (Thing("ring", "orange", "right"),))):
        scene = Scene(kind, (Thing("star", "red", "left"), *others), seed=0)
        assert any(caption.index(earlier) < caption.index(later) for caption in talk.captions(scene))


def test_a_question_that_fits_all_pictures_of_a_kind_reads_the_same_for_each() -> None:
    rng = np.random.default_rng(2)
    for kind in ("one", "count", "word"):
        texts = [{q.text for q in talk.questions(random_scene(kind, rng)) if q.alike} for _ in range(20)]
        assert all(text == texts[0] for text in texts)


def test_balanced_questions_leave_a_blind_model_little() -> None:
    rng = np.random.default_rng(3)
    scenes = [random_scene(KINDS[i % 4], rng) for i in range(400)]
    candidates = [(i, question) for i, scene in enumerate(scenes) for question in talk.questions(scene)]
    chosen = [candidates[i] for i in talk.balanced(candidates, 200, rng)]
    topics = Counter(question.topic for _, question in chosen)
    assert max(topics.values()) - min(topics.values()) <= 1
    assert max(Counter(group for group, _ in chosen).values()) <= 2
    assert talk.blind_floor([question for _, question in chosen]) < 0.2


def test_the_blind_floor_is_what_the_best_constant_answers_get() -> None:
    asked = [talk.Question("count", "?", answer) for answer in ("one", "one", "two")]
    asked += [talk.Question("word", "?", answer) for answer in ("cat", "dog")]
    assert talk.blind_floor(asked) == pytest.approx(3 / 5)
    assert talk.blind_floor([]) == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_conversation_never_says_an_answer_before_asking_for_it(kind: str) -> None:
    rng = np.random.default_rng(4)
    for _ in range(50):
        said = ""
        for question in without_hints(talk.questions(random_scene(kind, rng)), rng):
            assert question.answer not in said + question.text
            said += question.text + question.answer


def test_a_clip_asks_about_what_happens_in_it() -> None:
    moving = clips.Clip("ring", "red", "", "top", seed=1)
    turning = clips.Clip("ring", "red", "blue", "top", seed=1)
    assert clips.clip_caption(moving) == "the red ring moves up"
    assert clips.clip_caption(turning) == "the red ring turns blue"
    assert {question.answer for question in clips.clip_questions(turning)} == {"red", "blue"}
    assert "way" in {question.topic for question in clips.clip_questions(moving)}

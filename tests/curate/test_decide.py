"""Keep, or name the reason."""

from dataclasses import replace

import pytest
from pydantic import ValidationError

from owl3.curate.decide import (
    CaptionRules,
    ImageRules,
    Row,
    RowRules,
    ScoreRule,
    VideoRules,
    clip_checks,
    first_reason,
    image_checks,
    row_checks,
)
from owl3.media import ImageFacts
from owl3.video import VideoFacts

ROW = Row("http://a.example/1.jpg", "a.example", "a red circle on white", "CC-BY-4.0", {})
PICTURE = ImageFacts("JPEG", 640, 480, 1, 1, "0" * 16, 50.0, 100.0, 7.0, True)
CLIP = VideoFacts("mov", "h264", 640, 480, 10.0, 250, 25.0, False)


def row_reason(row: Row, **rules: object) -> str | None:
    return first_reason(row_checks(RowRules.model_validate(rules)), row)


def test_an_ordinary_row_is_kept() -> None:
    assert row_reason(ROW) is None


@pytest.mark.parametrize(
    ("caption", "rules", "reason"),
    [
        ("ab", {"min_chars": 3}, "caption_too_short"),
        ("one two", {"min_words": 3}, "caption_too_short"),
        ("abcdef", {"max_chars": 5}, "caption_too_long"),
        ("aaaaaaaaab", {"max_repetition": 0.5}, "caption_repetitive"),
        ("buy buy buy buy now", {"max_repetition": 0.5}, "caption_repetitive"),
        ("a b a b", {"max_repetition": 0.5}, None),
    ],
)
def test_captions(caption: str, rules: dict[str, object], reason: str | None) -> None:
    assert row_reason(replace(ROW, caption=caption), caption=CaptionRules.model_validate(rules)) == reason


def test_licences_are_compared_without_case() -> None:
    assert row_reason(ROW, licences=("cc-by-4.0",)) is None
    assert row_reason(ROW, licences=("CC0-1.0",)) == "licence_not_allowed"


@pytest.mark.parametrize(
    ("value", "missing", "reason"),
    [
        (0.1, "keep", "low_clip_similarity"),
        (0.3, "keep", None),
        ("0.1", "keep", "low_clip_similarity"),
        (None, "keep", None),
        (None, "drop", "low_clip_similarity"),
        (float("nan"), "drop", "low_clip_similarity"),
        ("n/a", "drop", "low_clip_similarity"),
    ],
)
def test_scores_of_the_corpus(value: object, missing: str, reason: str | None) -> None:
    rule = {"column": "similarity", "min": 0.2, "reason": "low_clip_similarity", "missing": missing}
    assert row_reason(replace(ROW, columns={"similarity": value}), scores=[rule]) == reason


@pytest.mark.parametrize(
    ("value", "rule", "kept"),
    [
        (["dog", "person"], {"none_of": ["Person"]}, False),
        (["dog"], {"none_of": ["person"]}, True),
        (["dog", "cat"], {"any_of": ["cat"]}, True),
        ([], {"any_of": ["cat"]}, False),
        (None, {"any_of": ["cat"]}, False),
        (None, {"none_of": ["cat"]}, True),
        ("cat", {"any_of": ["cat"], "none_of": ["dog"]}, True),
    ],
)
def test_words_of_the_corpus(value: object, rule: dict[str, object], kept: bool) -> None:
    reason = row_reason(replace(ROW, columns={"categories": value}), words=[{"column": "categories"} | rule])
    assert reason == (None if kept else "content_not_allowed")


def test_a_rule_on_words_names_some_and_leaves_the_digests_of_recipes_without_it_alone() -> None:
    with pytest.raises(ValidationError, match="needs any_of or none_of"):
        RowRules.model_validate({"words": [{"column": "x"}]})
    assert "words" not in RowRules().model_dump(mode="json")


def test_a_score_rule_needs_a_bound_and_a_known_reason() -> None:
    with pytest.raises(ValidationError, match="needs min or max"):
        ScoreRule(column="x", reason="unsafe")
    with pytest.raises(ValidationError, match="not on the closed list"):
        ScoreRule(column="x", max=1, reason="because")


@pytest.mark.parametrize(
    ("changes", "rules", "reason"),
    [
        ({}, {}, None),
        ({"width": 100}, {"min_side_px": 150}, "image_too_small"),
        ({"height": 5000}, {"max_side_px": 4096}, "image_too_large"),
        ({"width": 2000}, {"max_aspect_ratio": 3}, "aspect_ratio"),
        ({"frames": 9}, {"animated": "drop"}, "animated_image"),
        ({"frames": 9}, {}, None),
        ({"grey_std": 0.5}, {}, "blank_image"),
        ({"sharpness": 3.0}, {"min_sharpness": 10}, "blurred_image"),
    ],
)
def test_pictures(changes: dict[str, object], rules: dict[str, object], reason: str | None) -> None:
    checks = image_checks(ImageRules.model_validate(rules))
    assert first_reason(checks, replace(PICTURE, **changes)) == reason  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "rules", "reason"),
    [
        ({}, {}, None),
        ({"width": 90}, {"min_side_px": 100}, "image_too_small"),
        ({"duration_s": 0.5}, {"min_duration_s": 1}, "clip_too_short"),
        ({"frames": 1}, {}, "clip_too_short"),
        ({"duration_s": 90.0}, {"max_duration_s": 60}, "clip_too_long"),
    ],
)
def test_clips(changes: dict[str, object], rules: dict[str, object], reason: str | None) -> None:
    checks = clip_checks(VideoRules.model_validate(rules))
    assert first_reason(checks, replace(CLIP, **changes)) == reason  # type: ignore[arg-type]

"""Soft VQA accuracy (VQAv2, OK-VQA, TextVQA, VizWiz) under the three rules in use, and how they normalise answers.

    official   the VQA challenge's vqaEval: an answer scores min(1, agreeing annotators / 3), averaged over leaving each
               annotator out; punctuation, articles and number words are normalised ONLY IF the annotators disagree
    evalai     TextVQA's (m4c) and EvalAI's: the same accuracy, always normalised, answers counted by position
    paper      mPLUG-Owl3's own scorer: the model's answer is always normalised, the annotators' only in punctuation

The same 1258 LLaVA-1.5 answers to TextVQA score 49.09 (official, as written), 61.25 (official, lower-cased first),
61.33 (evalai) and 59.07 (paper). So the rule is part of a task's version.

Source: the behaviour of GT-Vision-Lab/VQA's vqaEval.py, LLaVA's m4c_evaluator.py and mPLUG-Owl3's vqa_eval.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

Rule = Literal["official", "evalai", "paper"]

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
# The official patterns, slips included: `(?!<=\d)` was meant as a look-behind and excludes nothing.
_PERIOD = re.compile(r"(?!<=\d)(\.)(?!\d)")
_COMMA_IN_NUMBER = re.compile(r"(\d)(,)(\d)")
_MAX_PERIODS = int(re.UNICODE)  # the official code passes the flag where `sub` takes its count
_ARTICLES = ("a", "an", "the")
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {word: str(number) for number, word in enumerate(_NUMBER_WORDS)}
_NUMBERS["none"] = "0"

_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()  # noqa: SIM905 - a hundred quoted words would bury the code


def _contractions() -> dict[str, str]:
    """Misspelt -> spelt: each form without one of its apostrophes."""
    table = {word[:i] + word[i + 1 :]: word for word in _CONTRACTED for i, letter in enumerate(word) if letter == "'"}
    table["somebody'd"] = "somebodyd"  # the official table has this one the wrong way round
    return table


_CONTRACTIONS = _contractions()


def strip_punctuation(text: str) -> str:
    """Drop punctuation that stands beside a blank (or beside anything, when the text holds 1,000); else blank it."""
    out = text
    in_number = _COMMA_IN_NUMBER.search(text) is not None
    for mark in _PUNCTUATION:
        beside_blank = f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if beside_blank or in_number else " ")
    return _PERIOD.sub("", out, count=_MAX_PERIODS)


def strip_articles(text: str) -> str:
    """Lower-case, drop articles, write number words as digits, repair contractions."""
    words = [_NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def evalai_normalise(text: str) -> str:
    """The EvalAI processor of TextVQA: lower case, no commas or question marks, "'s" set apart, then as above."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return strip_articles(strip_punctuation(text.replace("\n", " ").replace("\t", " ").strip()))


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _leave_one_out(answer: str, annotators: Sequence[str]) -> float:
    """Mean over annotators of min(1, others who agree / 3)."""
    agreeing = sum(said == answer for said in annotators)
    with_self = min(1.0, (agreeing - 1) / 3) * agreeing
    without = min(1.0, agreeing / 3) * (len(annotators) - agreeing)
    return (with_self + without) / len(annotators)


def vqa_accuracy(answer: str, annotators: Sequence[str], rule: Rule = "official") -> float:
    """Score one answer against its (usually ten) annotators, 0 to 1.

    Args:
        answer: What the model said.
        annotators: What each person said, in any order; persons who say the same stay apart (the annotation files'
            `answer_id` tells them apart; VizWiz's conversion lacks it, and the official code then merges them).
        rule: See the head of this file.
    """
    if rule == "evalai":
        return _leave_one_out(evalai_normalise(answer), [evalai_normalise(said) for said in annotators])
    said = [_one_line(person) for person in annotators] if rule == "official" else list(annotators)
    mine = _one_line(answer)
    differ = len(set(said)) > 1
    if rule == "paper":
        mine = strip_articles(strip_punctuation(mine))
        return _leave_one_out(mine, [strip_punctuation(person) for person in said] if differ else said)
    if differ:
        mine = strip_articles(strip_punctuation(mine))
        said = [strip_articles(strip_punctuation(person)) for person in said]
    return _leave_one_out(mine, said)


def merged_vqa_accuracy(answer: str, people: Sequence[tuple[str, ...]]) -> float:
    """The official rule on a file without `answer_id`: people whose entries are equal are left out together.

    Not a score to report; it explains published figures that were computed so (VizWiz 42.75 instead of 52.37).

    Args:
        answer: What the model said.
        people: Each person's whole entry, the answer first (VizWiz: answer and confidence).
    """
    entries = [(_one_line(entry[0]), *entry[1:]) for entry in people]
    mine = _one_line(answer)
    if len({entry[0] for entry in entries}) > 1:
        mine = strip_articles(strip_punctuation(mine))
        entries = [(strip_articles(strip_punctuation(entry[0])), *entry[1:]) for entry in entries]
    agreeing = ([o[0] == mine for o in entries if o != entry] for entry in entries)
    return sum(min(1.0, sum(group) / 3) for group in agreeing) / len(entries)

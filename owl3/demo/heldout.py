"""Held-out questions about pictures and clips that training never sees, laid out like any benchmark.

    questions.jsonl   {"id", "media": ["0012.jpg", …], "question", "answer", "options", "type", "group", "index", …}
    0012.jpg …        `index` is the place, from 1, of the picture asked about, where there are several

`kind` tells what the picture asked about shows; `alike` marks questions that every picture of that kind answers.

Answers are balanced within each type of question. The functions return the blind floor: the accuracy of the best
constant answer per type.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from owl3.config import canonical_json
from owl3.demo import clips, talk
from owl3.demo.conversations import pick
from owl3.demo.scenes import Scene

Pictures = Sequence[tuple[Scene, bytes]]
Asked = tuple[list[int], int, talk.Question]
"""Numbers of the pictures shown, the place of the one asked about, and the question."""


def write_single(folder: Path, pictures: Pictures, count: int, rng: np.random.Generator) -> float:
    """Questions about one picture."""
    candidates = [(i, question) for i, (scene, _) in enumerate(pictures) for question in talk.questions(scene)]
    chosen = [candidates[i] for i in talk.balanced(candidates, count, rng)]
    return _write_set(folder, pictures, [([i], 0, question) for i, question in chosen])


def write_among(folder: Path, pictures: Pictures, among: int, count: int, rng: np.random.Generator) -> float:
    """Questions about one of `among` pictures, all of one kind, so that the others have answers too."""
    candidates = [_ask_among(pictures, among, rng) for _ in range(3 * count)]
    chosen = talk.balanced([(i, question) for i, (_, _, question) in enumerate(candidates)], count, rng)
    return _write_set(folder, pictures, [candidates[i] for i in chosen])


def write_video(folder: Path, made: Sequence[clips.Clip], count: int, rng: np.random.Generator) -> float:
    """Questions about one clip."""
    candidates = [(i, question) for i, clip in enumerate(made) for question in clips.clip_questions(clip)]
    chosen = [candidates[i] for i in talk.balanced(candidates, count, rng)]
    for i in sorted({i for i, _ in chosen}):
        clips.write_clip(made[i], folder / f"{i:04d}.mp4")
    return _write_questions(folder, [([f"{i:04d}.mp4"], 0, question, "clip") for i, question in chosen])


def _ask_among(pictures: Pictures, among: int, rng: np.random.Generator) -> Asked:
    kind = ("one", "count", "word")[int(rng.integers(3))]
    alike = [i for i, (scene, _) in enumerate(pictures) if scene.kind == kind]
    shown = [alike[j] for j in rng.permutation(len(alike))[:among]]
    place = int(rng.integers(among))
    return shown, place, pick([q for q in talk.questions(pictures[shown[place]][0]) if q.alike], rng)


def _write_set(folder: Path, pictures: Pictures, asked: Sequence[Asked]) -> float:
    folder.mkdir(parents=True)
    for i in sorted({i for shown, _, _ in asked for i in shown}):
        (folder / f"{i:04d}.jpg").write_bytes(pictures[i][1])
    named = [([f"{i:04d}.jpg" for i in shown], at, q, pictures[shown[at]][0].kind) for shown, at, q in asked]
    return _write_questions(folder, named)


def _write_questions(folder: Path, asked: Sequence[tuple[list[str], int, talk.Question, str]]) -> float:
    lines = []
    for number, (media, place, question, kind) in enumerate(asked):
        line: dict[str, Any] = {
            "id": f"{folder.name}-{number:04d}",
            "media": media,
            "question": question.text,
            "answer": question.answer,
            "options": list(talk.OPTIONS[question.topic]),
            "type": question.topic,
            "group": "+".join(media),
            "kind": kind,
            "alike": question.alike,
        }
        lines.append(line | ({"index": place + 1} if len(media) > 1 else {}))
    (folder / "questions.jsonl").write_bytes(b"".join(canonical_json(line) + b"\n" for line in lines))
    return round(talk.blind_floor([question for _, _, question, _ in asked]), 4)

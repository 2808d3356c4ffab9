"""What MMBench, its Chinese edition and CCBench share: a tsv with pictures as base64, and circular evaluation.

    index  question  hint  A  B  C  D  answer  category  image  split

The published files come flat (one row per question) or with the passes spelt out (index + k * 1000000); flat ones are
rotated here. A picture may stand once and be referred to by another row's index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from owl3.errors import InputError
from owl3.eval.items import Item, Medium, Record
from owl3.eval.metrics.choice import circular_by_category, option_lines, whole_questions
from owl3.eval.spreadsheet import Cell, workbook
from owl3.eval.task import Task
from owl3.eval.tasks._choice import LETTER_PLEASE, answer_index, circular_items, make_item, parse
from owl3.eval.tasks._files import find_files, inline_picture, media_path, need, read_table

PROMPT = "Context: {hint}\nQuestion: {question}\nOptions: {options}\n" + LETTER_PLEASE
PASS_STEP = 1_000_000


def load_tsv(folder: Path, *patterns: str, form: str = PROMPT) -> list[Item]:
    """Read the first tsv that matches; one item per pass. `form` takes hint, question and options."""
    path = find_files(folder, *patterns)[0]
    rows = read_table(path, "\t")
    pictures = {row["index"]: row["image"] for row in rows if len(row.get("image") or "") > 64}
    spelt_out = any(int(row["index"]) >= PASS_STEP for row in rows)
    items: list[Item] = []
    for row in rows:
        where = f"{path}: question {row.get('index')}"
        need(row, ("index", "question", "A", "B"), where)
        options = [row[letter] for letter in "ABCD" if (row.get(letter) or "").strip()]
        if not len(options) >= 2:
            raise InputError(f"{where}: has {len(options)} options, at least 2 are needed")
        answer = answer_index(row["answer"], options, where, by_letter=True) if row.get("answer") else None
        picture = _picture(folder, row, pictures, where)
        hint = (row.get("hint") or "").strip() or "N/A"
        text = form.replace("{hint}", hint).replace("{question}", row["question"])
        name, category = str(int(row["index"]) % PASS_STEP), row.get("category") or ""
        if spelt_out:
            prompt = (picture, text.replace("{options}", option_lines(options)))
            made = [make_item(row["index"], prompt, options, answer, category=category, group=name, question=name)]
        else:
            made = list(circular_items(name, [picture], text, options, answer, category=category))
        items += [
            replace(item, meta={**item.meta, "asked": row["question"], "shown": list(item.options)}) for item in made
        ]
    return items


def _picture(folder: Path, row: dict[str, str], pictures: dict[str, str], where: str) -> Medium:
    text = row.get("image") or ""
    if text and len(text) <= 64 and text not in pictures:
        return Medium(media_path(folder, text))
    text = pictures.get(text, text) or pictures.get(str(int(row["index"]) % PASS_STEP), "")
    if not text:
        return Medium(media_path(folder, f"{int(row['index']) % PASS_STEP}.jpg"))
    return Medium(data=inline_picture(text, where))


def submission(records: Sequence[Record]) -> tuple[str, bytes]:
    """The table that MMBench's server takes: index, question, prediction and the options as they were shown."""
    rows: list[list[Cell]] = [
        [_index(record), str(record.meta.get("asked", "")), record.answer or record.raw, *_four(record.meta)]
        for record in records
    ]
    return "submission.xlsx", workbook(["index", "question", "prediction", *"ABCD"], rows)


def _index(record: Record) -> Cell:
    """As the server counts: pass k of question q is q + k * 1000000."""
    question, _, shift = record.id.partition("-")
    return int(question) + PASS_STEP * int(shift or 0)


def _four(meta: Mapping[str, Any]) -> list[str | None]:
    options = list(meta.get("shown", ()))
    return options + [None] * (4 - len(options))


def mmbench(language: str, paper: Mapping[str, float]) -> Task:
    """MMBench in a language, `en` or `cn`: the test split's table, else dev's, else one that names the language."""
    tables = [f"mmbench_{split}_{language}_20231003.tsv" for split in ("test", "dev")]

    def load(folder: Path) -> list[Item]:
        return load_tsv(folder, *tables, f"*{language.upper()}*.tsv", f"*{language}*.tsv")

    return Task(
        name=f"mmbench-{language}",
        version="3-circular",
        load=load,
        parse=parse,
        cut=True,
        letters=True,
        aggregate=circular_by_category,
        units=whole_questions,
        submission=submission,
        paper=paper,
    )

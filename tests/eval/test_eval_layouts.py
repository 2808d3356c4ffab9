"""Benchmarks of which no records lie here: each task reads the layout its header shows, and asks as released."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from owl3.errors import InputError
from owl3.eval.evaluate import load_items
from owl3.eval.items import Item, Record
from owl3.eval.media import show
from owl3.eval.registry import find_task
from owl3.eval.tasks._choice import answer_index

LETTER = "Answer with the option’s letter from the given choices directly."
SHORT = "Answer the question using a single word or phrase."
INTERLEAVE = "multi_image_out_domain.json"

VQA = {"question_id": 7, "image_id": 42, "question": "What is it?"}
ANSWERS = {"question_id": 7, "answers": [{"answer": "dog"}] * 10}


def talk(dataset: str, asked: str, gold: str, pictures: int = 2) -> list[dict[str, Any]]:
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": gold}]
    names = [f"{number}.png" for number in range(pictures)]
    other = {"sample_id": 9, "image": ["x.png"], "conversations": turns, "metadata": {"dataset": "Other"}}
    return [{"sample_id": 1, "image": names, "conversations": turns, "metadata": {"dataset": dataset}}, other]


CASES: dict[str, tuple[Mapping[str, object], str, tuple[str, ...], int]] = {
    "vqav2": (
        {
            "v2_OpenEnded_mscoco_val2014_questions.json": {"questions": [VQA]},
            "v2_mscoco_val2014_annotations.json": {"annotations": [ANSWERS]},
        },
        f"<image>What is it? {SHORT}",
        ("dog",) * 10,
        1,
    ),
    "okvqa": (
        {
            "OpenEnded_mscoco_val2014_questions.json": {"questions": [VQA]},
            "mscoco_val2014_annotations.json": {"annotations": [ANSWERS]},
        },
        f"<image>What is it? {SHORT}",
        ("dog",) * 10,
        1,
    ),
    "ai2d": (
        {"test.jsonl": {"question": "Which?", "options": ["leaf", "root"], "answer": "1", "image": "a.png"}},
        f"<image>\nQuestion: Which?\nOptions:\nA. leaf\nB. root\n{LETTER}",
        ("B",),
        1,
    ),
    "mmvet": (
        {"mm-vet.json": {"v1_0": {"imagename": "v.png", "question": "What is x?", "answer": "-1", "capability": []}}},
        "<image>\nWhat is x?",
        (),
        1,
    ),
    "lvbench": (
        {
            "video_info.meta.jsonl": {
                "key": "clip",
                "qa": [
                    {"uid": "3", "question": "Who?\n(A) he\n(B) she", "answer": "B", "question_type": ["entity"]},
                ],
            }
        },
        f"<video>\nWho?\n(A) he\n(B) she\n{LETTER}",
        ("B",),
        1,
    ),
    "mlvu": (
        {
            "json/3_ego.json": [
                {"video": "a.mp4", "question": "Where?", "candidates": ["here", "there"], "answer": "there"},
                {"video": "a.mp4", "question": "Tell.", "answer": "An open answer."},
            ]
        },
        f"<video>\nQuestion: Where?\nOptions: A. here\nB. there\n{LETTER}",
        ("B",),
        1,
    ),
    "mantis-eval": (
        {INTERLEAVE: talk("Mantis", "<image><image>Same? (A) yes (B) no", "(B)")},
        "Image 1: <image> Image 2: <image> Same? (A) yes (B) no",
        ("b",),
        1,
    ),
    "mathverse-mv": (
        {INTERLEAVE: talk("MathVerse", "<image><image>How long?", "4")},
        "Image 1: <image> Image 2: <image> How long?",
        ("4",),
        1,
    ),
    "sciverse-mv": (
        {
            INTERLEAVE: talk(
                "SciVerse", "<image><image>Which? Answer with the option's letter from the given choices directly.", "A"
            )
        },
        "Image 1: <image> Image 2: <image> Which? \nPlease select the correct paired scientific diagram from four "
        "given images. Answer with the option's letter from the given choices directly.",
        ("a",),
        1,
    ),
    "blink": (
        {INTERLEAVE: talk("BLINK", "<image><image>Closer? (A) left (B) right", "A")},
        f"the first image: <image> the second image: <image> Closer? (A) left (B) right\n{LETTER}",
        ("a",),
        1,
    ),
    "qbench2": (
        {
            "dev.jsonl": {
                "image1": "a.jpg",
                "image2": "b.jpg",
                "question": "Sharper?",
                "option0": "First",
                "option1": "Second",
                "option2": "N/A",
                "option3": "N/A",
                "correct_choice": "A",
                "question_type": 1,
            }
        },
        f"Image 1: <image>\nImage 2: <image>\nQuestion: Sharper?\nOptions: A. First\nB. Second\n{LETTER}",
        ("A",),
        1,
    ),
    "mi-bench": (
        {
            "multi_image_instruction.json": [
                {
                    "id": 5,
                    "question": "<image>and <image>?",
                    "options": ["x", "y", "z"],
                    "answer": "y",
                    "image": ["a", "b"],
                }
            ]
        },
        f"<image>and <image>?\nOptions: A. x\nB. y\nC. z\n{LETTER}",
        ("B",),
        3,
    ),
    "msvd-captions": (
        {"test.txt": "clip_1_2 a bird in a sink\nclip_1_2 a bird bathes\n"},
        "<video>Provide a one-sentence caption for the provided video.",
        ("a bird in a sink", "a bird bathes"),
        1,
    ),
    "vatex-captions": (
        {"vatex_public_test_english_v1.1.json": [{"videoID": "a_0_9", "enCap": ["A man cooks."]}]},
        "<video>Provide a one-sentence caption for the provided video.",
        ("A man cooks.",),
        1,
    ),
}


def write(folder: Path, files: Mapping[str, object]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("name", CASES)
def test_a_published_record_becomes_the_released_question(name: str, tmp_path: Path) -> None:
    files, prompt, gold, count = CASES[name]
    write(tmp_path, files)
    items = load_items(find_task(name), tmp_path)
    assert len(items) == count
    assert items[0].text() == prompt
    assert items[0].answers == gold
    for item in items:
        right = find_task(name).record(item, item.answers[0] if item.answers else "anything")
        assert right.score in (1.0, None)
        assert right.how == "strict"


def test_rotations_of_mi_bench_move_the_right_option_and_only_all_of_them_count(tmp_path: Path) -> None:
    write(tmp_path, CASES["mi-bench"][0])
    task = find_task("mi-bench")
    items = load_items(task, tmp_path)
    assert [item.answers[0] for item in items] == ["B", "C", "A"]
    assert len({item.group for item in items}) == 1  # an interval draws all passes of a question, or none
    records = [task.record(item, item.answers[0]) for item in items]
    assert task.aggregate(records)["circular_accuracy"] == 1.0
    records[1] = task.record(items[1], "A")
    assert task.aggregate(records)["circular_accuracy"] == 0.0


@pytest.mark.parametrize(
    ("answer", "by_letter", "meant"),
    [(1, False, 1), ("1", False, 3), ("C", True, 2), ("C", False, 0), ("2", True, 1), ("B", False, 1)],
)
def test_a_number_counts_and_a_letter_names_whatever_the_options_read(
    answer: str | int, by_letter: bool, meant: int
) -> None:
    """AI2D answers by index where options are numbers; MMBench by letter where options are letters, rotated."""
    assert answer_index(answer, ["C", "2", "A", "1"], "here", by_letter=by_letter) == meant


def test_a_number_beyond_the_options_is_refused() -> None:
    with pytest.raises(InputError, match=r"here: the answer 4 is none of its 4 options, counted from 0"):
        answer_index(4, ["w", "x", "y", "z"], "here")


def answered(name: str, item: Item, raw: str) -> list[Record]:
    return [find_task(name).record(item, raw)]


def test_submissions_are_what_the_servers_take(tmp_path: Path) -> None:
    """EvalAI: question_id as a number; VizWiz: by picture; MMBench: a table by index; MM-Vet: id to answer."""
    item = Item("7", ("?",), (), ("x", "y"))
    made = {}
    for name in ("vqav2", "vizwiz", "mmbench-en", "mmbench-cn", "mmvet"):
        submission = find_task(name).submission
        assert submission is not None
        made[name] = submission(answered(name, item, "B"))
    assert (made["vqav2"][0], json.loads(made["vqav2"][1])) == ("submission.json", [{"question_id": 7, "answer": "b"}])
    assert json.loads(made["vizwiz"][1]) == [{"image": "7", "answer": "b"}]
    assert json.loads(made["mmvet"][1]) == {"7": "B"}
    for name in ("mmbench-en", "mmbench-cn"):
        assert made[name][0] == "submission.xlsx"
        assert read_workbook(made[name][1])[1][:3] == [7, "", "B"]


def test_mmbench_s_server_gets_each_pass_under_its_own_index(tmp_path: Path) -> None:
    """A table of one row per question is rotated here; the server counts passes in millions, the last option first."""
    table = "index\tquestion\tA\tB\tC\timage\n7\twhat <is> this & that?\tx\ty\tz\tp.jpg"
    (tmp_path / "mmbench_test_en_20231003.tsv").write_text(table)
    task = find_task("mmbench-en")
    records = [
        task.record(item, said) for item, said in zip(load_items(task, tmp_path), ("A", "?\x0b", "C"), strict=True)
    ]
    assert task.submission is not None
    assert read_workbook(task.submission(records)[1]) == [
        ["index", "question", "prediction", "A", "B", "C", "D"],
        [7, "what <is> this & that?", "A", "x", "y", "z"],
        [1000007, "what <is> this & that?", "?", "z", "x", "y"],
        [2000007, "what <is> this & that?", "C", "y", "z", "x"],
    ]
    assert task.submission(records) == task.submission(records)


def test_mvbench_finds_clips_where_its_archives_put_them_and_reads_tvqa_s_frames(tmp_path: Path) -> None:
    """Its json names clips by their file names alone; one of the twenty tasks comes as folders of pictures."""
    row = {"question": "What?", "candidates": ["a", "b"], "answer": "b", "start": 1.0, "end": 3.0}
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "action_sequence.json").write_text(json.dumps([{**row, "video": "ZS9XR.mp4"}]))
    (tmp_path / "json" / "episodic_reasoning.json").write_text(json.dumps([{**row, "video": "castle_s07e04"}]))
    clip = tmp_path / "video/star/Charades_v1_480/ZS9XR.mp4"
    frames = tmp_path / "video/tvqa/frames_fps3_hq/castle_s07e04"
    clip.parent.mkdir(parents=True)
    clip.write_bytes(b"a video")
    frames.mkdir(parents=True)
    for number in range(1, 13):  # four seconds
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(frames / f"{number:05d}.png")
    star, tvqa = load_items(find_task("mvbench"), tmp_path)
    assert star.media()[0].path == clip
    shown = show(tvqa.with_frames(3))
    assert shown.error is None
    # The middles of the thirds of seconds 1 to 3 are 1.333, 2 and 2.667 s: the fourth, seventh and ninth picture.
    assert [picture.getpixel((0, 0)) for picture in shown.pictures[0]] == [(20 * n, 0, 0) for n in (4, 7, 9)]
    for picture in frames.iterdir():
        picture.unlink()
    assert show(tvqa).error == "clip_too_short: castle_s07e04"
    frames.rmdir()
    (gone,) = [item for item in load_items(find_task("mvbench"), tmp_path) if item.category == "episodic_reasoning"]
    assert show(gone).error == "media_missing: castle_s07e04"


def read_workbook(data: bytes) -> list[list[str | int]]:
    """The cells of the first sheet, row by row."""
    names = {"s": "http://schemas.openxmlformats.org/spreadsheetml/2006/main"}
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        assert packed.testzip() is None
        sheet = ElementTree.fromstring(packed.read("xl/worksheets/sheet1.xml"))

    def value(cell: ElementTree.Element) -> str | int:
        is_text = cell.get("t") == "inlineStr"
        return cell.findtext("s:is/s:t", "", names) if is_text else int(cell.findtext("s:v", "", names))

    return [[value(cell) for cell in row] for row in sheet.findall("s:sheetData/s:row", names)]


@pytest.mark.parametrize("name", ["mantis-eval", "mi-bench"])
def test_more_pictures_than_a_question_names_are_refused(name: str, tmp_path: Path) -> None:
    files = json.loads(json.dumps(CASES[name][0]))
    (rows,) = files.values()
    rows[0]["image"].append("one-too-many.png")
    write(tmp_path, files)
    with pytest.raises(InputError, match=r"question \d: names 2 pictures, has 3"):
        load_items(find_task(name), tmp_path)

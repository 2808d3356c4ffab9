import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from eval_oracle import Oracle

from owl3.errors import CheckFailed, ConfigError, InputError
from owl3.eval.evaluate import Ask, evaluate, load_items, select
from owl3.eval.items import Item, Medium
from owl3.eval.media import Shown
from owl3.eval.registry import find_task
from owl3.eval.results import PARTIAL_NAME, AnswerLog, read_records, read_summary
from owl3.manifest import read_manifest, verify_files

TASK = find_task("scenes-single")
Make = Callable[[int], Path]


def run(folder: Path, out: Path, answerer: Oracle, **options: object) -> dict[str, object]:
    return evaluate(TASK, load_items(TASK, folder), answerer, out, settings={}, **options)  # type: ignore[arg-type]


def test_looking_gives_one_and_not_looking_the_floor(make_benchmark: Make, tmp_path: Path, oracle: Oracle) -> None:
    folder = make_benchmark(9)
    seen = run(folder, tmp_path / "seen", oracle)
    blind = run(folder, tmp_path / "blind", oracle, blind=True)
    assert seen["figures"] == {"accuracy": 1.0}
    assert blind["figures"] == {"accuracy": pytest.approx(1 / 3, abs=1e-5)}
    assert seen["floors"] == {"random": pytest.approx(1 / 3, abs=1e-5), "majority": pytest.approx(1 / 3, abs=1e-5)}
    assert read_records(tmp_path / "blind")[0].prompt == "What colour?"


def test_batch_size_changes_no_byte_of_the_result(make_benchmark: Make, tmp_path: Path, oracle: Oracle) -> None:
    folder = make_benchmark(7)
    digests = set()
    for batch_size in (1, 3, 16):
        out = tmp_path / str(batch_size) / "scenes-single"
        run(folder, out, oracle, batch_size=batch_size)
        digests.add(read_manifest(out).digest)
    assert len(digests) == 1


class Dies(Exception):
    pass


class DiesAfter(Oracle):
    def __init__(self, batches: int) -> None:
        super().__init__()
        self.left = batches

    def answer(self, shown: Sequence[Shown], ask: Ask) -> list[str]:
        if self.left == 0:
            raise Dies
        self.left -= 1
        return super().answer(shown, ask)


def test_a_killed_evaluation_asks_only_what_is_missing(make_benchmark: Make, tmp_path: Path, oracle: Oracle) -> None:
    folder, out = make_benchmark(8), tmp_path / "a" / "scenes-single"
    first = DiesAfter(2)
    with pytest.raises(Dies):
        run(folder, out, first, batch_size=2)
    with (out / PARTIAL_NAME).open("ab") as log:
        log.write(b'{"id": "q7", "ra')  # the line that a kill tore
    run(folder, out, oracle, batch_size=2)
    assert sorted(first.asked + oracle.asked) == [f"q{i}" for i in range(8)]
    whole = tmp_path / "b" / "scenes-single"
    run(folder, whole, Oracle())
    assert read_manifest(out).digest == read_manifest(whole).digest
    assert verify_files(out, read_manifest(out)) == []
    assert not (out / PARTIAL_NAME).exists()


def test_a_finished_result_is_not_made_again(make_benchmark: Make, tmp_path: Path, oracle: Oracle) -> None:
    folder = make_benchmark(3)
    first = run(folder, tmp_path / "out", oracle)
    again = Oracle()
    assert run(folder, tmp_path / "out", again) == first
    assert again.asked == []


def test_an_unreadable_picture_is_reported_and_never_scored(
    make_benchmark: Make, tmp_path: Path, oracle: Oracle
) -> None:
    folder, out = make_benchmark(4), tmp_path / "out"
    (folder / "1.png").unlink()
    (folder / "2.png").write_bytes(b"<html>not a picture</html>")
    with pytest.raises(CheckFailed, match=r"2 of 4 questions could not be put \(media_missing 1, not_an_image 1\)"):
        run(folder, out, oracle)
    summary = read_summary(out)
    assert summary["num_scored"] == 2
    assert summary["figures"] == {"accuracy": 1.0}
    assert read_manifest(out).counts.dropped == {"media_missing": 1, "not_an_image": 1}
    assert [record.score for record in read_records(out)] == [1.0, None, None, 1.0]


def test_questions_that_training_may_have_seen_are_scored_apart(
    make_benchmark: Make, tmp_path: Path, oracle: Oracle
) -> None:
    folder = make_benchmark(6)
    (folder / "overlap.txt").write_text("0.png\nq4\n")
    summary = run(folder, tmp_path / "out", oracle, blind=True)
    assert summary["by_overlap"] == {
        "clean": {"n": 4, "score": 0.25},  # q1, q2, q3 (red), q5
        "overlapped": {"n": 2, "score": 0.5},
    }


def test_a_limited_run_asks_a_part_of_a_longer_one() -> None:
    items = [Item(id=str(i), prompt=("?",)) for i in range(50)]
    few, more = select(items, 10), select(items, 20)
    assert len(few) == 10
    assert {item.id for item in few} < {item.id for item in more}
    assert [int(item.id) for item in more] == sorted(int(item.id) for item in more)


def test_the_number_of_frames_can_be_swept_without_touching_pictures() -> None:
    item = Item("a", (Medium(Path("v.mp4"), num_frames=8), Medium(Path("p.jpg")), "?"))
    assert [medium.num_frames for medium in item.with_frames(32).media()] == [32, 0]


def test_an_unknown_task_offers_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean scenes-single"):
        find_task("scene-single")


def test_bad_benchmark_files_are_named_with_their_line(make_benchmark: Make) -> None:
    folder = make_benchmark(2)
    lines = (folder / "questions.jsonl").read_text().splitlines()
    (folder / "questions.jsonl").write_text("\n".join([lines[0], lines[0]]))
    with pytest.raises(InputError, match=r"questions.jsonl:2: question id 'q0' comes twice"):
        load_items(TASK, folder)
    (folder / "questions.jsonl").write_text('{"id": "x"}\n')
    with pytest.raises(InputError, match=r":1: lacks answer, media, options, question"):
        load_items(TASK, folder)
    with pytest.raises(InputError, match="no such folder"):
        load_items(TASK, folder / "nowhere")


def test_the_log_of_answers_survives_a_torn_line(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path)
    log.add({"a": "1"}, {"b": "media_missing: x"})
    log.close()
    path = tmp_path / PARTIAL_NAME
    path.write_bytes(path.read_bytes() + b'{"id": "c", "raw": "\xe4')
    again = AnswerLog(tmp_path)
    again.add({"c": "ü"}, {})
    again.close()
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["a", "b", "c"]


def test_an_answer_to_a_question_that_was_reworded_since_is_not_taken_over(
    make_benchmark: Make, tmp_path: Path
) -> None:
    """Killed, its files mended, started again: what is worded anew is asked anew, the rest is kept."""
    task, bench, out = find_task("scenes-single"), make_benchmark(6), tmp_path / "out"

    class Dying(Oracle):
        def answer(self, shown: Sequence[Shown], ask: Ask) -> list[str]:
            if len(self.asked) >= 4:
                raise KeyboardInterrupt
            return super().answer(shown, ask)

    first = Dying()
    with pytest.raises(KeyboardInterrupt):
        evaluate(task, load_items(task, bench), first, out, settings={}, batch_size=2)
    path = bench / "questions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1]["question"] = "Which colour?"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    second = Oracle()
    summary = evaluate(task, load_items(task, bench), second, out, settings={}, batch_size=2)
    assert sorted(first.asked) == ["q0", "q1", "q2", "q3"]
    assert sorted(second.asked) == ["q1", "q4", "q5"]
    assert summary["figures"]["accuracy"] == 1.0
    (out / "manifest.json").unlink()
    rows[2]["question"] = "What tint?"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    third = Oracle()
    evaluate(task, load_items(task, bench), third, out, settings={}, batch_size=2)
    assert third.asked == ["q2"]

"""What is wrong with a benchmark, a checkpoint or a clock is named, counted and never scored as a wrong answer."""

import json
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
from eval_oracle import COLOURS, Oracle
from huggingface_hub.errors import LocalEntryNotFoundError

from owl3.errors import CheckFailed, InputError
from owl3.eval.evaluate import Share, evaluate, load_items
from owl3.eval.queue import EVALS_NAME, claim, enqueue, pending, weights_digest
from owl3.eval.registry import choose_tasks, find_task
from owl3.eval.results import read_summary
from owl3.eval.runner import drain, evaluate_checkpoint
from owl3.eval.settings import EvalConfig, TaskSetting
from owl3.manifest import read_manifest

Make = Callable[[int], Path]


def test_a_video_that_does_not_decode_is_counted_and_not_scored(tmp_path: Path, oracle: Oracle) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42" + b"no video at all" * 20)
    row = {"id": "q", "media": ["broken.mp4"], "question": "?", "answer": "red", "options": list(COLOURS)}
    (tmp_path / "questions.jsonl").write_text(json.dumps(row) + "\n")
    task, out = find_task("scenes-video"), tmp_path / "out"
    items = load_items(task, tmp_path)
    with pytest.raises(CheckFailed, match=r"1 of 1 questions could not be put \(\w+ 1\)"):
        evaluate(task, items, oracle, out, settings={})
    summary = read_summary(out)
    assert (summary["num_scored"], summary["figures"], oracle.asked) == (0, {}, [])
    evaluate(task, items, oracle, tmp_path / "tolerant", settings={}, max_error_fraction=1.0)


def test_a_result_of_other_questions_is_not_taken_for_theirs(make_benchmark: Make, tmp_path: Path) -> None:
    """Two folders of one name (`test/pope`, `val/pope`), or files that changed: key and title are the same."""
    task, out = find_task("scenes-single"), tmp_path / "scenes-single"
    four, five = (load_items(task, make_benchmark(count)) for count in (4, 5))
    evaluate(task, four, Oracle(), out, settings={})
    with pytest.raises(InputError, match=r"holds answers to other questions than these \(question q4 differs\)"):
        evaluate(task, five, Oracle(), out, settings={})
    other = replace(four[2], answers=("red",))
    with pytest.raises(InputError, match=r"\(question q2 differs\)"):
        evaluate(task, [*four[:2], other, four[3]], Oracle(), out, settings={})
    assert evaluate(task, four, Oracle(), out, settings={})["num_questions"] == 4


def test_what_was_mended_is_put_again_and_nothing_else(make_benchmark: Make, tmp_path: Path, oracle: Oracle) -> None:
    bench, task, out = make_benchmark(5), find_task("scenes-single"), tmp_path / "once" / "scenes-single"
    (bench / "3.png").rename(tmp_path / "3.png")
    with pytest.raises(CheckFailed, match=r"remove manifest\.json there and run again"):
        evaluate(task, load_items(task, bench), oracle, out, settings={})
    (tmp_path / "3.png").rename(bench / "3.png")
    (out / "manifest.json").unlink()
    again = Oracle()
    summary = evaluate(task, load_items(task, bench), again, out, settings={})
    assert (again.asked, summary["num_scored"], summary["errors"]) == (["q3"], 5, {})
    whole = tmp_path / "whole" / "scenes-single"
    evaluate(task, load_items(task, bench), Oracle(), whole, settings={})
    assert read_manifest(out).digest == read_manifest(whole).digest


@pytest.mark.parametrize("size", [1, 2])
def test_a_task_without_its_pictures_does_not_keep_the_others_from_being_scored(
    model_dir: Path, make_benchmark: Make, tmp_path: Path, size: int
) -> None:
    """Of several processes all must go the same way, or one would wait for the other's answers for ever."""
    bench, out = make_benchmark(6), tmp_path / "out"
    lost = tmp_path / "scenes-single-lost"
    lost.mkdir()
    (lost / "questions.jsonl").write_bytes((bench / "questions.jsonl").read_bytes())
    tasks = choose_tasks(f"scenes-single={lost},scenes-single={bench}", tmp_path)

    def score(rank: int) -> str:
        share = Share(rank, size)
        with pytest.raises(CheckFailed) as failure:
            evaluate_checkpoint(
                model_dir, tasks, out, load_answerer=lambda _: Oracle(), blind=True, batch_size=2, share=share
            )
        return str(failure.value)

    with ThreadPoolExecutor(size) as ranks:
        (reason,) = {*ranks.map(score, range(size))}
    assert reason.startswith("scenes-single: 6 of 6 questions could not be put (media_missing 6)")
    finished = sorted(path.parent.name.rpartition("-")[0] for path in out.glob("*/manifest.json"))
    assert finished == ["scenes-single", "scenes-single-blind", "scenes-single-lost"]


@pytest.mark.parametrize("task", ["vqav2", "gqa", "mmbench-en"])
def test_a_question_id_that_comes_twice_is_named(task: str, tmp_path: Path) -> None:
    if task == "vqav2":
        row = {"question_id": 7, "image_id": 1, "question": "what?"}
        (tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json").write_text(json.dumps({"questions": [row, row]}))
    elif task == "gqa":
        body = {"imageId": "1", "question": "what?", "answer": "a", "types": {"structural": "query"}}
        pair = ", ".join(f'"7": {json.dumps(body)}' for _ in range(2))
        (tmp_path / "testdev_balanced_questions.json").write_text("{" + pair + "}")
    else:
        lines = ["index\tquestion\tA\tB\tanswer\timage", *["7\twhat?\tx\ty\tA\tp.jpg"] * 2]
        (tmp_path / "mmbench_dev_en_20231003.tsv").write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"7(-0)?'? comes twice"):
        load_items(find_task(task), tmp_path)


@pytest.mark.parametrize(
    ("cells", "complaint"),
    [("x\t\tA", "has 1 options, at least 2"), ("x\ty\tD", "the answer 'D' is none of its 2 options")],
)
def test_fewer_options_than_stated_are_refused(cells: str, complaint: str, tmp_path: Path) -> None:
    table = f"index\tquestion\tA\tB\tanswer\timage\n7\twhat?\t{cells}\tp.jpg"
    (tmp_path / "mmbench_dev_en_20231003.tsv").write_text(table)
    with pytest.raises(InputError, match=f"question 7: {complaint}"):
        load_items(find_task("mmbench-en"), tmp_path)


def test_a_checkpoint_that_is_still_being_written_is_refused(model_dir: Path, tmp_path: Path) -> None:
    (model_dir / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (model_dir / "model.safetensors.index.json").write_text(json.dumps(index))
    (model_dir / "model-00001-of-00002.safetensors").write_bytes(b"half")
    with pytest.raises(InputError, match=r"model-00002-of-00002.safetensors is missing; .* still being written"):
        weights_digest(model_dir)


def test_results_of_another_version_or_setting_lie_apart(model_dir: Path, make_benchmark: Make, tmp_path: Path) -> None:
    bench, out = make_benchmark(6), tmp_path / "out"
    tasks = choose_tasks(f"scenes-single={bench}", tmp_path)
    listed = tmp_path / "overlap-scenes.txt"
    listed.write_text("q1\n")
    settings: list[dict[str, object]] = [{}, {"limit": 3}, {"method": "likelihood"}, {"overlap": [listed]}]
    for options in settings:
        evaluate_checkpoint(model_dir, tasks, out, load_answerer=lambda _: Oracle(), **options)  # type: ignore[arg-type]
    (model_dir / "model.safetensors").write_bytes(b"other weights")
    report = evaluate_checkpoint(model_dir, tasks, out, load_answerer=lambda _: Oracle())
    assert len(list(out.glob("scenes-single-*/manifest.json"))) == 5
    assert report["scenes-single"]["by_overlap"] == {}


def test_curation_s_list_splits_the_scores_of_a_run(model_dir: Path, make_benchmark: Make, tmp_path: Path) -> None:
    stage = tmp_path / "runs" / "demo" / "sft"
    place = tmp_path / "shards" / "scenes" / "overlap-scenes.txt"
    place.parent.mkdir(parents=True)
    place.write_text("0.png\nq4\n")
    setting = TaskSetting(
        name="scenes-single",
        folder=str(make_benchmark(6)),
        overlap=("shards/scenes/overlap-scenes.txt",),
        blind="never",
    )
    enqueue(stage, model_dir, step=3, config=EvalConfig(tasks=(setting,)), workspace=tmp_path, end=True)
    assert drain(stage, tmp_path, load_answerer=lambda _: Oracle()) == (1, {})
    (summary,) = (json.loads(path.read_bytes()) for path in stage.glob("evals/end/*/summary.json"))
    assert {name: part["n"] for name, part in summary["by_overlap"].items()} == {"clean": 4, "overlapped": 2}


def test_no_clock_takes_part_in_a_claim(
    model_dir: Path, make_benchmark: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of the future and of the past, a clock that jumps back a year: what is held stays held."""
    stage = tmp_path / "runs" / "demo" / "sft"
    tasks = (TaskSetting(name="scenes-single", folder=str(make_benchmark(6))),)
    enqueue(stage, model_dir, step=3, config=EvalConfig(tasks=tasks), workspace=tmp_path, end=True)
    held, free = pending(stage)
    now = time.time()
    with claim(stage, held) as mine:
        assert mine
        for number, path in enumerate(sorted((stage / EVALS_NAME).rglob("*"))):
            moment = now + (1 if number % 2 else -1) * 3e7
            os.utime(path, (moment, moment))
        monkeypatch.setattr(time, "time", lambda: now - 3e7)
        with claim(stage, held) as again:
            assert not again
        assert drain(stage, tmp_path, load_answerer=lambda _: Oracle()) == (1, {})
        assert pending(stage) == [held]
        assert free.is_done(stage)
    assert drain(stage, tmp_path, load_answerer=lambda _: Oracle()) == (1, {})
    assert pending(stage) == []


def test_a_task_for_the_end_alone_waits_for_it(model_dir: Path, make_benchmark: Make, tmp_path: Path) -> None:
    bench = str(make_benchmark(3))
    tasks = (
        TaskSetting(name="scenes-single", folder=bench),
        TaskSetting(name="needle-scenes", folder=bench, when="end", blind="never"),
    )
    for end, titles in ((False, ["scenes-single"]), (True, ["needle-scenes", "scenes-single", "scenes-single"])):
        stage = tmp_path / f"stage-{end}"
        asked = enqueue(stage, model_dir, step=3, config=EvalConfig(tasks=tasks), workspace=tmp_path, end=end)
        assert sorted(request.title for request in asked) == titles


def test_a_benchmark_comes_from_the_hub_s_cache_or_is_named(
    make_benchmark: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "cache"
    shutil.copytree(make_benchmark(3), cached)

    def snapshot_download(name: str, *, repo_type: str, revision: str | None) -> str:
        assert repo_type == "dataset"
        if (name, revision) != ("me/scenes", "v1"):
            raise LocalEntryNotFoundError("offline, and not in the cache")
        return str(cached)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    (one,) = choose_tasks("scenes-single=hf:me/scenes@v1", Path())
    assert len(load_items(find_task(one.name), one.folder)) == 3
    with pytest.raises(InputError, match="hf:me/other: can't be fetched: offline"):
        choose_tasks("scenes-single=hf:me/other", Path())
    (named,) = choose_tasks("scenes-single=hf:me/other", Path(), fetch=False)
    assert named.folder == Path("hf:me/other")

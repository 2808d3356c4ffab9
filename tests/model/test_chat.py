"""One question about pictures and clips."""

import json
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from transformers import AutoProcessor

from owl3.cli import main as owl3
from owl3.errors import InputError
from owl3.model import chat
from owl3.model.config import Owl3Config
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.model.processing import Owl3Processor
from owl3.tokens import train_tiny
from tests.model.conftest import tiny_config

TOKENIZER = train_tiny(["what is it"], 400)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    config: Owl3Config = tiny_config("gated", text_config={"vocab_size": 400, "max_position_embeddings": 512})
    Owl3ForConditionalGeneration(config).save_pretrained(folder)
    Owl3Processor.of(config, TOKENIZER).save_pretrained(folder)
    Image.new("RGB", (90, 60), (255, 0, 0)).save(folder / "red.png")
    return folder


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert chat.main(["--json", "--max-new-tokens=4", *arguments]) == 0
    return dict(json.loads(capsys.readouterr().out.splitlines()[-1]))


def test_pictures_stand_before_the_question_or_where_it_says(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = f"--image={checkpoint / 'red.png'}"
    before = answer(capsys, image, image, "--no-cut", "--", str(checkpoint), "What?")
    inside = answer(capsys, image, image, "--no-cut", "--", str(checkpoint), "<|image|><|image|>\nWhat?")
    assert before["pictures"] == inside["pictures"] == 2
    assert before["prompt_tokens"] == inside["prompt_tokens"]
    assert before["answer"] == inside["answer"]
    assert answer(capsys, image, "--cut", "--", str(checkpoint), "What?")["pictures"] == 7


def test_sampling_with_a_seed_is_reproducible(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = [
        answer(capsys, "--temperature=2", f"--seed={seed}", "--", str(checkpoint), "What?")["answer"]
        for seed in (0, 0, 1)
    ]
    assert told[0] == told[1] != told[2]


def test_the_answer_streams_as_text_and_beams_come_at_once(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = answer(capsys, "--", str(checkpoint), "What?")["answer"]
    assert chat.main(["--max-new-tokens=4", "--", str(checkpoint), "What?"]) == 0
    assert capsys.readouterr().out == f"{expected}\n"
    assert chat.main(["--max-new-tokens=4", "--beams=2", "--", str(checkpoint), "What?"]) == 0
    assert capsys.readouterr().out.endswith("\n")


def test_an_exclamation_mark_survives(checkpoint: Path) -> None:
    processor = AutoProcessor.from_pretrained(checkpoint)
    ids = TOKENIZER.encode("Yes! No!<|im_end|>")
    assert 0 in ids
    assert processor.batch_decode([ids], skip_special_tokens=True) == ["Yes! No!"]


def test_wrong_files_are_one_line(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "note.jpg").write_text("no picture")
    for arguments, message in (
        ([f"--image={tmp_path / 'none.jpg'}", "--", str(checkpoint), "q"], "none.jpg: No such file or directory"),
        ([f"--image={tmp_path / 'note.jpg'}", "--", str(checkpoint), "q"], "note.jpg: can't be read as a picture"),
        ([f"--video={tmp_path / 'note.jpg'}", "--", str(checkpoint), "q"], "note.jpg: is no clip that FFmpeg can read"),
        (["--", str(tmp_path), "q"], "no config.json; give a checkpoint folder"),
    ):
        assert chat.main(arguments) == 2
        told = capsys.readouterr().err.strip().splitlines()
        assert told[-1].startswith("owl3: ") and message in told[-1]


def test_a_clip_is_read_by_time_and_at_most_so_many_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[float]] = []

    class Facts:
        duration_s = 10.0

    class Still:
        image = Image.new("RGB", (4, 4))

    monkeypatch.setattr(chat, "probe_video", lambda path: Facts)
    monkeypatch.setattr(chat, "frames_at", lambda path, times: asked.append(times) or [Still for _ in times])
    assert len(chat.read_video(Path("clip.mp4"), max_frames=4, fps=1.0)) == 4
    assert len(chat.read_video(Path("clip.mp4"), max_frames=64, fps=0.5)) == 5
    assert asked == [[1.25, 3.75, 6.25, 8.75], [1.0, 3.0, 5.0, 7.0, 9.0]]


def test_the_command_line_passes_its_options_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    for name in ("model/config.json", "a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    commands: list[list[str]] = []

    class Done:
        returncode = 0

    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command) or Done)
    assert owl3(["chat", "model", "What?", "--image", "a.jpg", "--image", "b.jpg", "--no-cut", "--beams", "3"]) == 0
    given = commands[0][commands[0].index("owl3.model.chat") + 1 :]
    assert given[:2] == ["--image=a.jpg", "--image=b.jpg"] and given[-3:] == ["--", "model", "What?"]
    assert {"--no-cut", "--beams=3", "--temperature=0.0"} < set(given)


@pytest.mark.processes
def test_a_process_of_ours_tells_what_is_wrong_and_its_exit_code_is_passed_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    assert owl3(["convert", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "holds a 'gpt2' checkpoint; converting to ours needs 'mplugowl3'" in capfd.readouterr().err


def test_reading_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.png"):
        chat.read_image(tmp_path / "gone.png")

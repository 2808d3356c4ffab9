"""Ask a checkpoint one question about pictures and clips.

    python -m owl3.model.chat CHECKPOINT "question" --image a.jpg --image b.jpg

Started by `owl3 chat`. The answer streams to stdout; with `--json` only one JSON object is printed.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoProcessor, TextStreamer
from transformers.utils.logging import disable_progress_bar

import owl3.model  # noqa: F401 - the Auto classes must know the model
from owl3.errors import InputError, exit_code_of
from owl3.media import MediaError, open_image
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.model.processing import Owl3Processor
from owl3.video import frames_at, probe_video, uniform_times


@dataclass(frozen=True)
class Answer:
    """What the model said, and what it took."""

    answer: str
    prompt_tokens: int
    new_tokens: int
    pictures: int
    seconds: float


def load(
    checkpoint: Path, dtype: torch.dtype | None, device: str
) -> tuple[Owl3ForConditionalGeneration, Owl3Processor]:
    """A checkpoint folder's model, ready to answer, and its processor.

    Raises:
        InputError: for a folder that holds no whole Owl3 checkpoint.
    """
    if not (checkpoint / "config.json").is_file():
        raise InputError(f"{checkpoint}: no config.json; give a checkpoint folder")
    if not sys.stderr.isatty():  # in a log a bar is garbage
        disable_progress_bar()
    model = Owl3ForConditionalGeneration.from_pretrained(checkpoint, dtype=dtype or "auto").to(device).eval()
    return model, AutoProcessor.from_pretrained(checkpoint)


def ask(
    model: Owl3ForConditionalGeneration,
    processor: Owl3Processor,
    question: str,
    images: Sequence[Image.Image] = (),
    videos: Sequence[Sequence[Image.Image]] = (),
    *,
    system: str | None = None,
    cut: bool | None = None,
    streamer: Any = None,
    **generation: Any,
) -> Answer:
    """Answer one question.

    Pictures stand where the question says `<|image|>` or `<|video|>`; if it says neither, before it.
    """
    if "<|image|>" not in question and "<|video|>" not in question and (images or videos):
        question = "<|image|>" * len(images) + "<|video|>" * len(videos) + "\n" + question
    messages = [{"role": "system", "content": system}] if system else []
    inputs = processor(
        [*messages, {"role": "user", "content": question}], images=list(images), videos=list(videos), cut_enable=cut
    ).to(model.device)
    tokenizer = processor.tokenizer
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    started = time.perf_counter()
    with torch.inference_mode():
        ids = model.generate(
            **inputs, streamer=streamer, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id, **generation
        )[0, inputs["input_ids"].shape[1] :]
    return Answer(
        answer=tokenizer.decode(ids, skip_special_tokens=True),
        prompt_tokens=inputs["input_ids"].shape[1],
        new_tokens=len(ids),
        pictures=len(inputs["pixel_values"]) if "pixel_values" in inputs else 0,
        seconds=round(time.perf_counter() - started, 3),
    )


def read_image(path: Path) -> Image.Image:
    """A picture file, upright.

    Raises:
        InputError: naming the file, when it is missing or no picture.
    """
    try:
        return open_image(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except MediaError as error:
        raise InputError(f"{path}: can't be read as a picture: {error}") from error


def read_video(path: Path, max_frames: int, fps: float) -> list[Image.Image]:
    """A clip's frames at `fps`, but at most `max_frames` spread evenly over it, by timestamp.

    Raises:
        InputError: naming the file, when it is missing or no clip.
    """
    try:
        duration_s = probe_video(path).duration_s
        count = max(1, min(max_frames, round(duration_s * fps)))
        return [frame.image for frame in frames_at(path, uniform_times(0.0, duration_s, count))]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except MediaError as error:
        raise InputError(f"{path}: is no clip that FFmpeg can read ({error})") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(prog="owl3 chat")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("question")
    parser.add_argument("--image", type=Path, action="append", default=[])
    parser.add_argument("--video", type=Path, action="append", default=[])
    parser.add_argument("--max-frames", type=int, default=16)
    parser.add_argument("--fps", type=float, default=1.0)
    parser.add_argument("--system")
    parser.add_argument("--cut", action=argparse.BooleanOptionalAction)
    parser.add_argument("--max-new-tokens", type=int, default=512)
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    return exit_code_of(lambda: _tell(options))


def _tell(options: argparse.Namespace) -> None:
    answer = _answer(options)
    if options.json:
        sys.stdout.write(json.dumps(vars(answer), ensure_ascii=False) + "\n")
    elif options.beams > 1:
        sys.stdout.write(answer.answer + "\n")


def _answer(options: argparse.Namespace) -> Answer:
    images = [read_image(path) for path in options.image]
    videos = [read_video(path, options.max_frames, options.fps) for path in options.video]
    dtype = None if options.dtype == "auto" else getattr(torch, options.dtype)
    model, processor = load(options.checkpoint, dtype, options.device)
    torch.manual_seed(options.seed)
    sampling = {"do_sample": True, "temperature": options.temperature, "top_p": options.top_p}
    greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    streams = not options.json and options.beams == 1
    return ask(
        model,
        processor,
        options.question,
        images,
        videos,
        system=options.system,
        cut=options.cut,
        streamer=TextStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True) if streams else None,
        max_new_tokens=options.max_new_tokens,
        num_beams=options.beams,
        **(sampling if options.temperature > 0 else greedy),
    )


if __name__ == "__main__":
    sys.exit(main())

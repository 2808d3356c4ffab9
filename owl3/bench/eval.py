"""How fast questions are answered: in batches against one by one, and options against a question asked anew each time.

On the tiny model with random weights (speed does not depend on what it learned); single thread on CPU, greedy, a fixed
number of new tokens, so that every run does the same work. Ways are measured in turn, A B A B, in CPU seconds (on a GPU
in wall seconds), so that other work on the machine meets all of them alike.

    batched / one by one      samples per second, ratio (target: at least 3)
    choices, shared pictures  against encoding the pictures again for every option; how often a picture is encoded
    waiting for data          share of wall time in which the model waited for decoded pictures (read from JPEG files)
"""

import json
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from owl3.bench.meter import interleaved
from owl3.eval.evaluate import Ask
from owl3.eval.generate import Generator
from owl3.eval.items import Item, Medium
from owl3.eval.media import ReadAhead
from owl3.model.config import Owl3Config
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.model.processing import Owl3Processor
from owl3.tokens import train_tiny

OPTIONS = ("red", "orange", "yellow", "green", "blue", "purple")
NEW_TOKENS = 8
TARGET = 3.0
NUM_CHOICES = 16
"""Questions with options that are measured."""


def run(out: Path, samples: int = 96, batch_size: int = 16, threads: int = 1, rounds: int = 3) -> dict[str, Any]:
    """Measure, and write `eval.json` and `eval.md`; a minute on one core.

    Args:
        samples: Questions, each about a picture of its own.
        batch_size: Of the batched run.
        threads: Of torch.
        rounds: Measurements of each way; the median counts.
    """
    torch.set_num_threads(threads)
    generator = _generator()
    items = _items(out / "pictures", samples)
    batches = [items[start : start + batch_size] for start in range(0, samples, batch_size)]
    shown = [one for batch in ReadAhead([items]) for one in batch]
    ask = Ask(max_new_tokens=NEW_TOKENS)
    few = shown[:NUM_CHOICES]
    ways = {
        "one_by_one": lambda: [generator.answer([one], ask) for one in shown],
        "batched": lambda: [generator.answer(shown[i : i + batch_size], ask) for i in range(0, samples, batch_size)],
        "choices_shared": lambda: generator.answer(few, Ask(choose=True)),
        "choices_apart": lambda: [[generator.likelihoods(one, [option]) for option in OPTIONS] for one in few],
    }
    seconds = interleaved(ways, rounds, generator.model.device)
    counts = {name: encoded_pictures(generator, ways[name]) / len(few) for name in ("choices_shared", "choices_apart")}
    result = {
        "device": str(generator.model.device),
        "samples": samples,
        "batch_size": batch_size,
        "threads": threads,
        "rounds": rounds,
        "one_by_one_per_s": round(samples / seconds["one_by_one"], 2),
        "batched_per_s": round(samples / seconds["batched"], 2),
        "batched_over_one_by_one": round(seconds["one_by_one"] / seconds["batched"], 2),
        "target": TARGET,
        "choices_shared_over_apart": round(seconds["choices_apart"] / seconds["choices_shared"], 2),
        "encodings_per_picture": counts,
        "waited_for_data_share": round(data_wait(generator, batches, ask), 4),
    }
    (out / "eval.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (out / "eval.md").write_text(markdown(result), encoding="utf-8")
    return result


def encoded_pictures(generator: Generator, work: Any) -> int:
    """How many pictures go through the vision model while `work` is done."""
    counted: list[int] = []

    def count(_module: object, arguments: tuple[torch.Tensor, ...]) -> None:
        counted.append(len(arguments[0]))

    handle = generator.model.vision_model.embeddings.register_forward_pre_hook(count)
    try:
        work()
    finally:
        handle.remove()
    return sum(counted)


def data_wait(generator: Generator, batches: list[list[Item]], ask: Ask) -> float:
    """Share of wall time in which the model waited, reading the pictures' files anew."""
    reader = ReadAhead(batches)
    begun = time.perf_counter()
    for batch in reader:
        generator.answer(batch, ask)
    return reader.waited_s / (time.perf_counter() - begun)


def markdown(result: dict[str, Any]) -> str:
    """The table for `infra/bench`."""
    shared, apart = (result["encodings_per_picture"][f"choices_{way}"] for way in ("shared", "apart"))
    rows = [
        ("generation, one by one", f"{result['one_by_one_per_s']} samples/s", ""),
        ("generation, batched", f"{result['batched_per_s']} samples/s", ""),
        ("batched / one by one", f"{result['batched_over_one_by_one']}x", f"at least {result['target']:g}x"),
        ("choices: shared pictures / asked anew", f"{result['choices_shared_over_apart']}x", ""),
        ("encodings of a picture, shared / asked anew", f"{shared:g} / {apart:g}", f"1 / {len(OPTIONS)}"),
        ("wait for data", f"{100 * result['waited_for_data_share']:.1f} % of wall time", "reported"),
    ]
    return "\n".join(
        [
            "# `owl3 bench eval`",
            "",
            f"{result['samples']} questions about a picture each, batches of {result['batch_size']}, {NEW_TOKENS} new",
            f"tokens, tiny model on {result['device']}, {result['threads']} thread(s); medians of {result['rounds']}.",
            "",
            "| measured | value | target |",
            "| --- | --- | --- |",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
        ]
    )


def _generator() -> Generator:
    torch.manual_seed(0)
    tokenizer = train_tiny([" ".join(OPTIONS), "What colour is the shape?"], 400)
    config = Owl3Config.preset("tiny", text_config={"vocab_size": tokenizer.vocab_size})
    model = Owl3ForConditionalGeneration(config).eval()
    # Never ends by itself: each answer is as long as asked.
    generator = Generator(model, Owl3Processor.of(config, tokenizer))
    generator.ends = []
    return generator


def _items(folder: Path, count: int) -> list[Item]:
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for index in range(count):
        path = folder / f"{index}.jpg"
        Image.effect_noise((160, 120), 60 + index % 40).convert("RGB").save(path)
        prompt = (Medium(path), "What colour is the shape?")
        items.append(Item(str(index), prompt, ("red",), OPTIONS))
    return items

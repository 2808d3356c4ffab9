"""How fast questions are answered: in batches against one by one, and options against a question asked anew each time.

On the tiny model with random weights (speed does not depend on what it learned); single thread on CPU, greedy, a fixed
number of new tokens, so that every run does the same work.

    batched / one by one      samples per second, ratio (target: at least 3)
    choices, shared pictures  against encoding the pictures again for every option, ratio
    waiting for data          share of the time in which the model waited for decoded pictures (read from JPEG files)
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from owl3.eval.evaluate import Ask
from owl3.eval.generate import Generator
from owl3.eval.items import Item, Medium
from owl3.eval.media import ReadAhead
from owl3.model.config import Owl3Config
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.model.processing import Owl3Processor
from owl3.tokens import train_tiny

OPTIONS = ("red", "orange", "yellow", "green", "blue", "purple")


def run(out: Path, samples: int = 96, batch_size: int = 16, threads: int = 1, quick: bool = False) -> dict[str, Any]:
    """Measure; `quick` for a look, not for a figure."""
    torch.set_num_threads(threads)
    samples = 32 if quick else samples
    generator = _generator()
    items = _items(out / "pictures", samples)
    shown = [one for batch in ReadAhead([items]) for one in batch]
    ask = Ask(max_new_tokens=8)
    alone = _rate(samples, lambda: [generator.answer([one], ask) for one in shown])
    batches = [shown[i : i + batch_size] for i in range(0, samples, batch_size)]
    batched = _rate(samples, lambda: [generator.answer(batch, ask) for batch in batches])
    few = shown[:16]
    shared = _rate(len(few), lambda: generator.answer(few, Ask(choose=True)))
    apart = _rate(len(few), lambda: [[generator.likelihoods(one, [option]) for option in OPTIONS] for one in few])
    reader = ReadAhead([items[i : i + batch_size] for i in range(0, samples, batch_size)])
    begun = time.perf_counter()
    for batch in reader:
        generator.answer(batch, ask)
    return {
        "samples": samples,
        "batch_size": batch_size,
        "threads": threads,
        "one_by_one_per_s": round(alone, 2),
        "batched_per_s": round(batched, 2),
        "batched_over_one_by_one": round(batched / alone, 2),
        "choices_shared_over_apart": round(shared / apart, 2),
        "waited_for_data_share": round(reader.waited_s / (time.perf_counter() - begun), 4),
    }


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


def _rate(count: int, work: Callable[[], object]) -> float:
    work()  # the first time pays for what is done once
    begun = time.perf_counter()
    work()
    return count / (time.perf_counter() - begun)

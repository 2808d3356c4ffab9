"""A model that answers: batched greedy generation with left padding, or the likeliest of the options shown.

What else stands in a batch does not change an answer: rows do not see each other, padding is never attended to, and
decoding is greedy in float32 on CPU (on a GPU in the weights' own type, where the order of sums may decide a tie).

Shape letters in this file: B rows, S columns, K columns of answers at the end, V vocabulary.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig
from transformers.utils.logging import disable_progress_bar

import owl3.model  # noqa: F401 - registers the model type
from owl3.errors import InputError
from owl3.eval.evaluate import Ask
from owl3.eval.items import LETTERS
from owl3.eval.media import Shown
from owl3.ranks import ranks_in
from owl3.tokens import TextTokenizer

logger = logging.getLogger(__name__)

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Weighed:
    """What a model makes of candidate answers, each with its end: three tensors of (number of candidates,)."""

    likelihoods: Tensor
    """Log-likelihood, summed over tokens."""
    is_greedy: Tensor
    """Whether greedy decoding would say just that."""
    num_tokens: Tensor


class Generator:
    """A checkpoint and its processor, ready to answer.

    Args:
        model: In evaluation mode, on its device.
        processor: The one that was saved beside it.

    Attributes:
        ends: Ids that end an answer.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model
        self.processor = processor
        self.tokenizer = TextTokenizer(processor.tokenizer.backend_tokenizer, where="processor.tokenizer")
        self.ends = [self.tokenizer.turn_end_id, self.tokenizer.end_of_text_id]
        # What is saved beside weights is meant for conversation (released ones: repetition_penalty 1.05, which would
        # punish the very options that stand in the prompt) and must not reach a score.
        self.model.generation_config = GenerationConfig(do_sample=False, pad_token_id=self.tokenizer.end_of_text_id)

    @classmethod
    def load(cls, model_dir: Path, *, threads: int = 0) -> Generator:
        """Load a `transformers` folder of ours, or a converted release.

        Args:
            model_dir: The folder.
            threads: Of torch on CPU; 0 leaves torch's own choice.

        Raises:
            InputError: the folder holds no model of ours.
        """
        if threads:
            torch.set_num_threads(threads)
        if not sys.stderr.isatty():  # in a log a bar is garbage
            disable_progress_bar()
        on_gpu = torch.cuda.is_available()
        device = f"cuda:{ranks_in(os.environ)[2] % torch.cuda.device_count()}" if on_gpu else "cpu"
        dtype = "auto" if on_gpu else torch.float32
        try:
            model = AutoModelForImageTextToText.from_pretrained(model_dir, dtype=dtype, local_files_only=True)
            processor = AutoProcessor.from_pretrained(model_dir, local_files_only=True)
        except (OSError, ValueError) as error:
            raise InputError(f"{model_dir}: can't be loaded: {' '.join(str(error).split())[:300]}") from error
        return cls(model.to(device).eval(), processor)

    def answer(self, shown: Sequence[Shown], ask: Ask) -> list[str]:
        """Answer each question; the words without their end tokens.

        Raises:
            InputError: they don't fit into the accelerator's memory at once.
        """
        try:
            return self._answer(shown, ask)
        except torch.OutOfMemoryError as error:
            count = sum(len(frames) for one in shown for frames in one.pictures)
            raise InputError(
                f"out of memory with {len(shown)} questions about {count} pictures at once; lower the batch size"
            ) from error

    def _answer(self, shown: Sequence[Shown], ask: Ask) -> list[str]:
        if not ask.choose:
            return self._generate(shown, ask)
        closed = [one for one in shown if one.item.options]
        free = [one for one in shown if not one.item.options]
        said = dict(zip((one.item.id for one in free), self._generate(free, ask) if free else [], strict=True))
        said |= zip((one.item.id for one in closed), self._choose(closed, ask) if closed else [], strict=True)
        return [said[one.item.id] for one in shown]

    @torch.inference_mode()
    def _generate(self, shown: Sequence[Shown], ask: Ask) -> list[str]:
        inputs = self.processor([[question(one)] for one in shown], cut_enable=ask.cut, padding_side="left")
        prompt_columns = inputs["input_ids"].shape[1]
        ids_BS = self.model.generate(
            **inputs.to(self.model.device), max_new_tokens=ask.max_new_tokens, eos_token_id=self.ends or None
        )
        return [self._words(row) for row in ids_BS[:, prompt_columns:].tolist()]

    def _words(self, ids: list[int]) -> str:
        ends = [ids.index(end) for end in self.ends if end in ids]
        return self.tokenizer.decode(ids[: min(ends, default=len(ids))])

    def _choose(self, shown: Sequence[Shown], ask: Ask) -> list[str]:
        """The candidate whose words and end have the greatest likelihood; the first of equals."""
        chosen = []
        for one in shown:
            options = one.item.options
            candidates = LETTERS[: len(options)] if ask.letters else options
            scores = self.likelihoods(one, candidates, cut=ask.cut)
            chosen.append(candidates[int(scores.argmax())])
        return chosen

    def likelihoods(self, one: Shown, candidates: Sequence[str], *, cut: bool = False) -> Tensor:
        """Log-likelihood of each candidate answer, with its end: (len(candidates),)."""
        return self.weigh(one, candidates, cut=cut).likelihoods

    @torch.inference_mode()
    def weigh(self, one: Shown, candidates: Sequence[str], *, cut: bool = False) -> Weighed:
        """Put each candidate answer after the question.

        The question's pictures go through the vision model once: all rows share them by `image_index`.
        """
        rows = [[question(one), {"role": "assistant", "content": candidate}] for candidate in candidates]
        inputs = self.processor(rows, cut_enable=cut, return_labels=True, padding_side="left")
        labels_BS = inputs.pop("labels")
        if "pixel_values" in inputs:
            num_pictures = len(inputs["pixel_values"]) // len(rows)
            inputs["pixel_values"] = inputs["pixel_values"][:num_pictures]
            inputs["image_index"] = torch.arange(num_pictures).repeat(len(rows))
        answer_columns = int((labels_BS != -100).sum(1).max())
        targets_BK = labels_BS[:, -answer_columns:].to(self.model.device)
        # The column before the first answer token predicts it.
        logits = self.model(**inputs.to(self.model.device), logits_to_keep=answer_columns + 1).logits
        logp_BKV = logits[:, :-1].float().log_softmax(-1)
        told_BK = logp_BKV.gather(2, targets_BK.clamp_min(0)[..., None])[..., 0]
        is_answer_BK = targets_BK != -100
        scores: Tensor = told_BK.where(is_answer_BK, 0.0).sum(1)
        is_greedy = ((logp_BKV.argmax(-1) == targets_BK) | ~is_answer_BK).all(1)
        return Weighed(scores.cpu(), is_greedy.cpu(), is_answer_BK.sum(1).cpu())


def question(one: Shown) -> Message:
    """The user's message: text, pictures and videos in reading order; a blind question has text alone."""
    pictures = iter(one.pictures)
    content: list[dict[str, Any]] = []
    for part in one.item.prompt:
        if isinstance(part, str):
            content.append({"type": "text", "text": part})
            continue
        frames = next(pictures)
        is_video = part.num_frames > 0
        content.append({"type": "video", "video": list(frames)} if is_video else {"type": "image", "image": frames[0]})
    return {"role": "user", "content": content}

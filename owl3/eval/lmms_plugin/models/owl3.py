"""lmms-eval asks, our generator answers: batched, greedy, pictures in reading order.

    python -m lmms_eval --model owl3 --model_args pretrained=runs/demo/sft/model --tasks pope --batch_size 16

Source: lmms-eval's "simple" model interface: a request's `args` are (context, generation arguments, doc_to_visual,
doc_id, task, split); for `loglikelihood`, (context, doc_to_target, doc_to_visual, doc_id, task, split).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lmms_eval.api.model import lmms
from lmms_eval.api.registry import register_model
from PIL import Image

from owl3.eval.evaluate import Ask
from owl3.eval.generate import Generator
from owl3.eval.items import Item, Medium
from owl3.eval.media import Shown, open_medium

NUM_FRAMES = 16  # of a video that a task names by path; the released evaluation's number for MVBench
PLACEHOLDER = "<image>"


@register_model("owl3")
class Owl3(lmms):  # type: ignore[misc]
    """A checkpoint behind lmms-eval's interface.

    Args:
        pretrained: A `transformers` folder of ours, or a converted release.
        batch_size: Questions answered at once.
        num_frames: Frames of a video.
        cut: Cut pictures into tiles, as the released evaluation does for single-image tasks.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 1,
        num_frames: int = NUM_FRAMES,
        cut: bool = False,
        load: Callable[[Path], Any] = Generator.load,
        **_: Any,
    ) -> None:
        super().__init__()
        self.generator = load(Path(pretrained))
        self.batch_size = int(batch_size)
        self.num_frames = num_frames
        self.cut = cut

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answer every request; an answer ends at the first of its `until` strings."""
        answers: list[str] = []
        for start in range(0, len(requests), self.batch_size):
            batch = [request.args for request in requests[start : start + self.batch_size]]
            shown = [self._shown(args[0], args[2], *args[3:6]) for args in batch]
            longest = max(int(args[1].get("max_new_tokens", 100)) for args in batch)
            said = self.generator.answer(shown, Ask(max_new_tokens=longest, cut=self.cut))
            answers += [_until(text, args[1].get("until")) for text, args in zip(said, batch, strict=True)]
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Log-likelihood of each target; whether greedy decoding would say it is not computed and given as False."""
        scores = []
        for request in requests:
            context, target, visuals, doc_id, task, split = request.args
            doc = self.task_dict[task][split][doc_id]
            words = target if isinstance(target, str) else target(doc)
            shown = self._shown(context, visuals, doc_id, task, split)
            scores.append((float(self.generator.likelihoods(shown, [words], cut=self.cut)[0]), False))
        return scores

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not offered: our evaluation asks single questions."""
        raise NotImplementedError("owl3 answers single questions; choose tasks of one round")

    def _shown(self, context: str, visuals: Callable[[Any], Any], doc_id: int, task: str, split: str) -> Shown:
        """A request as our generator takes it: pictures where the context names them, else before it."""
        found = visuals(self.task_dict[task][split][doc_id]) or []
        media, pictures = [], []
        for visual in found:
            is_video = isinstance(visual, str)
            medium = Medium(Path(visual) if is_video else None, num_frames=self.num_frames if is_video else 0)
            media.append(medium)
            pictures.append(open_medium(medium) if is_video else (_rgb(visual),))
        pieces = context.split(PLACEHOLDER)
        if len(pieces) - 1 == len(media) and media:
            parts: list[str | Medium] = [pieces[0]]
            for medium, text in zip(media, pieces[1:], strict=True):
                parts += [medium, text]
        else:
            parts = [*media, context]
        prompt = tuple(part for part in parts if part != "")
        return Shown(Item(f"{task}/{split}/{doc_id}", prompt), tuple(pictures))


def _rgb(visual: Image.Image) -> Image.Image:
    return visual if visual.mode == "RGB" else visual.convert("RGB")


def _until(text: str, ends: str | Sequence[str] | None) -> str:
    for end in [ends] if isinstance(ends, str) else ends or []:
        text = text.split(end, maxsplit=1)[0] if end else text
    return text

"""lmms-eval asks, our generator answers: batched, greedy, pictures in reading order.

    python -m lmms_eval --model owl3 --model_args pretrained=runs/demo/sft/model --tasks pope --batch_size 16

Source: lmms-eval's "simple" model interface: a request's `args` are (context, generation arguments, doc_to_visual,
doc_id, task, split); for `loglikelihood`, (context, doc_to_target, doc_to_visual, doc_id, task, split); for
`generate_until_multi_round`, doc_to_text stands after doc_to_visual.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from lmms_eval.api import instance
from lmms_eval.api.model import lmms
from lmms_eval.api.registry import register_model
from PIL import Image

from owl3.errors import ConfigError
from owl3.eval.evaluate import Ask
from owl3.eval.generate import Generator
from owl3.eval.items import Item, Medium
from owl3.eval.media import Shown, open_medium

NUM_FRAMES = 16  # of a video that a task names by path; the released evaluation's number for MVBench
PLACEHOLDER = "<image>"
_SAMPLING = ("do_sample", "temperature", "num_beams")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Question:
    """What one request asks now. `visuals` gives its pictures and paths of videos: only when its batch is answered."""

    doc: Any
    name: str
    context: str
    visuals: Callable[[Any], Any]
    generation: Mapping[str, Any]

    @property
    def max_new_tokens(self) -> int:
        """How long the answer may be; the released evaluation's length where the task says nothing."""
        return int(self.generation.get("max_new_tokens", 100))


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
        **given: Any,
    ) -> None:
        super().__init__()
        unknown = sorted(given.keys() - {"device", "max_batch_size"})  # which lmms-eval adds; the device is found
        if unknown:
            raise ConfigError(f"model_args: owl3 has no argument {unknown[0]!r}; it takes pretrained, num_frames, cut")
        self.generator = load(Path(pretrained))
        if not str(batch_size).isdecimal():
            raise ConfigError(f"batch_size {batch_size!r}: owl3 takes a number")
        self.batch_size = int(batch_size)
        self.num_frames = num_frames
        self.cut = cut

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answer every request; an answer ends at the first of its `until` strings."""
        return self._answer([self._question(request.args) for request in requests])

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[list[str]]:
        """Answer tasks that look at an answer before they ask on (a search, a video that runs).

        After each round the task's `doc_to_text` is told what was said, and gives the next round's pictures and text,
        whole: a model sees no earlier round but what stands in that text. Rounds are batched over the requests that
        go on.

        Returns:
            Per request the answers of its rounds, as its task left them when it ended.
        """
        said: list[list[str]] = [[] for _ in requests]
        info: list[Any] = [None] * len(requests)
        asked = {index: self._question((*r.args[:3], *r.args[4:])) for index, r in enumerate(requests)}
        round_idx = 0
        while asked:
            round_idx += 1
            answers = dict(zip(asked, self._answer(list(asked.values())), strict=True))
            following = {}
            for index, question in asked.items():
                visuals, context, ended, rounds, info[index] = requests[index].args[3](
                    question.doc,
                    previous_output=[*said[index], answers[index]],
                    round_idx=round_idx,
                    previous_round_info=info[index],
                )
                said[index] = list(rounds)
                if not ended:
                    following[index] = replace(question, context=context, visuals=_always(visuals))
            asked = following
        return said

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        """Loss of each target, a mean over its tokens, and whether greedy decoding would say it.

        By its name it were the likelihood; lmms-eval's choices take the option of the least value, as its own models
        return losses. Targets of one question that follow each other (the options of a choice) share its pictures. A
        request of context and target alone asks for the target without its question.
        """
        scores: list[Any] = []
        for _, alike in groupby(requests, lambda request: (request.args[0], request.args[3:])):
            members = [request.args for request in alike]
            context, _, *rest = members[0]
            question = self._question((context, {}, *rest)) if rest else _without_question(context)
            # lmms-eval sets a blank before an option, for models that go on with a text; ours begins a turn.
            words = [(t if isinstance(t, str) else t(question.doc)).removeprefix(" ") for _, t, *_ in members]
            weighed = self.generator.weigh(self._shown(question), words, cut=self.cut)
            losses = (-weighed.likelihoods / weighed.num_tokens).tolist()
            scores += [_kept_whole(pair) for pair in zip(losses, weighed.is_greedy.tolist(), strict=True)]
        return scores

    @property
    def device(self) -> Any:
        """Where lmms-eval's ranks count their requests together."""
        return self.generator.model.device

    def _question(self, args: Sequence[Any]) -> Question:
        context, generation, visuals, doc_id, task, split = args
        return Question(self.task_dict[task][split][doc_id], f"{task}/{split}/{doc_id}", context, visuals, generation)

    def _answer(self, questions: Sequence[Question]) -> list[str]:
        """Answers in order. A batch holds answers of one greatest length, so that none depends on its neighbours."""
        self._warn_of_sampling(questions)
        answers: list[str] = []
        for length, alike in groupby(questions, lambda question: question.max_new_tokens):
            members = list(alike)
            for start in range(0, len(members), self.batch_size):
                batch = members[start : start + self.batch_size]
                ask = Ask(max_new_tokens=length, cut=self.cut)
                said = self.generator.answer([self._shown(question) for question in batch], ask)
                answers += [_until(text, q.generation.get("until")) for text, q in zip(said, batch, strict=True)]
        return answers

    def _warn_of_sampling(self, questions: Sequence[Question]) -> None:
        """Say once per call that a task's wish for sampling or beams is not heard."""
        for question in questions:
            wishes = question.generation
            beams = int(wishes.get("num_beams") or 1) > 1
            if beams or (wishes.get("do_sample") and wishes.get("temperature") != 0):
                asked = {name: wishes[name] for name in _SAMPLING if name in wishes}
                logger.warning("%s asks for %s; owl3 answers greedily all the same", question.name, asked)
                return

    def _shown(self, question: Question) -> Shown:
        """A request as our generator takes it: pictures where the context names them, else before it."""
        found = question.visuals(question.doc) or []
        media, pictures = [], []
        for visual in found:
            is_video = isinstance(visual, str)
            if not is_video and not isinstance(visual, Image.Image):
                raise ConfigError(f"{question.name}: shows a {type(visual).__name__}; owl3 sees pictures and videos")
            medium = Medium(Path(visual) if is_video else None, num_frames=self.num_frames if is_video else 0)
            media.append(medium)
            pictures.append(open_medium(medium) if is_video else (_rgb(visual),))
        pieces = question.context.split(PLACEHOLDER)
        if len(pieces) - 1 == len(media) and media:
            parts: list[str | Medium] = [pieces[0]]
            for medium, text in zip(media, pieces[1:], strict=True):
                parts += [medium, text]
        else:
            parts = [*media, question.context]
        prompt = tuple(part for part in parts if part != "")
        return Shown(Item(question.name, prompt), tuple(pictures))


def _without_question(context: str) -> Question:
    return Question(None, "target alone", context, _always(None), {})


def _kept_whole(pair: tuple[float, bool]) -> Any:
    """lmms-eval 0.7 takes what it does not know for text, a bare pair too, and its tasks then can't read it."""
    wrap = getattr(instance, "GenerationResult", None)
    return pair if wrap is None else wrap(pair)


def _always(visuals: Sequence[Any] | None) -> Callable[[Any], Any]:
    return lambda _: visuals


def _rgb(visual: Image.Image) -> Image.Image:
    return visual if visual.mode == "RGB" else visual.convert("RGB")


def _until(text: str, ends: str | Sequence[str] | None) -> str:
    for end in [ends] if isinstance(ends, str) else ends or []:
        text = text.split(end, maxsplit=1)[0] if end else text
    return text

"""Messages and pictures to the model's arguments, for all three releases.

    >>> processor([{"role": "user", "content": "<|image|>What is it?"}], images=[image])
    {'input_ids': …, 'attention_mask': …, 'pixel_values': …, 'image_rows': …, 'image_starts': …}

Content is text, in which `<|image|>` and `<|video|>` stand for the next image and the next video, or a list of parts:
{"type": "text", "text": …}, {"type": "image", "image": …}, {"type": "video", "video": [frames]}. A part without its
picture takes the next one of `images` or `videos`. What the text looks like is `owl3.template`'s business.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast, get_args

import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature, ProcessorMixin, Qwen2Tokenizer

from owl3.errors import InputError
from owl3.model.config import Owl3Config
from owl3.model.image_processing import Owl3ImageProcessor
from owl3.samples import Role, Segment, Turn
from owl3.template import Chunk, Grid, Release, Style, TokenizedText, render, tokenize
from owl3.tokens import END_OF_TEXT, TURN_END, TURN_START, TextTokenizer, control_token_in

Message = Mapping[str, Any]
Video = Sequence[Image.Image]

_MARK = re.compile(r"(<\|image\|>|<\|video\|>)")
_ROLES = get_args(Role)


@dataclass
class Conversation:
    """Messages read: segments and turns for the template, pictures in reading order."""

    segments: list[Segment] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    pictures: list[Image.Image] = field(default_factory=list)
    has_video: bool = False

    @property
    def num_images(self) -> int:
        """How many of the pictures are images, not frames."""
        return sum(segment.image is not None for segment in self.segments)


class Owl3Processor(ProcessorMixin):  # type: ignore[misc]
    """The tokenizer is the plain Qwen2 one: the placeholder is five ordinary tokens.

    Args:
        release: Whose conversation template: 240728, 241014 or 241101.
        style: How the model is spoken to unless a call says otherwise: `chat`, or `plain` where it was trained so.
    """

    def __init__(
        self,
        image_processor: Owl3ImageProcessor | None = None,
        tokenizer: Any = None,
        release: Release = "241101",
        chat_template: str | None = None,
        style: Style = "chat",
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.release: Release = release
        self.style: Style = style

    @classmethod
    def of(cls, config: Owl3Config, tokenizer: TextTokenizer, release: Release | None = None) -> "Owl3Processor":
        """The processor that belongs to a model; the release defaults to the one whose architecture it has."""
        image_processor = Owl3ImageProcessor(image_size=config.vision_config.image_size)
        return cls(image_processor, to_transformers(tokenizer), release=release or config.release)

    def __call__(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        images: Sequence[Any] | None = None,
        videos: Sequence[Any] | None = None,
        *,
        style: Style | None = None,
        cut_enable: bool | None = None,
        return_labels: bool = False,
        max_length: int | None = None,
        padding_side: str | None = None,
    ) -> BatchFeature:
        """Encode a conversation, or a batch of them. Nothing that is passed in is changed.

        Args:
            messages: One conversation, or a list of them.
            images: The images of the one conversation; for a list of conversations, a list per conversation.
            videos: Likewise; a video is a sequence of frames.
            style: `chat`, or `plain` for captions. None: the processor's own.
            cut_enable: Cut images into tiles. None: as the release was trained, that is, if the image processor
                allows it, but for 240728 only a single image and no video.
            return_labels: For training: keep the last answer, and return `labels` that train answers and their ends.
                Otherwise the text stops where the model should answer.
            max_length: Keep at most so many tokens; an image is then kept whole or left out.
            padding_side: `left` or `right`; by default right for training, left for generation.

        Returns:
            input_ids, attention_mask (B, S) and, where there are pictures, pixel_values (I, 3, H, W), image_rows and
            image_starts (I,); labels (B, S) when asked for. All as `Owl3ForConditionalGeneration.forward` takes them.

        Raises:
            InputError: for a message or a picture that can't be used, naming which.
        """
        conversations = [
            read_messages(each, own_images, own_videos, where)
            for each, own_images, own_videos, where in _batch(messages, images, videos)
        ]
        tokenizer = TextTokenizer(self.tokenizer.backend_tokenizer, where="processor.tokenizer")
        texts: list[TokenizedText] = []
        pixels: list[Tensor] = []
        for conversation in conversations:
            grids = self._grids(conversation, cut_enable)
            chunks = self._chunks(conversation, grids, style or self.style, not return_labels)
            text = tokenize(chunks, tokenizer, max_length)
            kept = sorted(set(text.media))
            if kept:
                shown = [conversation.pictures[medium] for medium in kept]
                pixels.append(self.image_processor.pixels(shown, [grids.get(medium) for medium in kept]))
            texts.append(text)
        side = padding_side or ("right" if return_labels else "left")
        data = pad_texts(texts, tokenizer.end_of_text_id, side, with_labels=return_labels)
        if pixels:
            data["pixel_values"] = torch.cat(pixels)
        return BatchFeature(data)

    def apply_chat_template(
        self,
        conversation: Sequence[Message] | Sequence[Sequence[Message]],
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        tokenize: bool = False,
        return_dict: bool = False,
        **kwargs: Any,
    ) -> Any:
        """The text of a conversation (or of several), or with `tokenize` what `__call__` makes of it.

        Raises:
            InputError: for a Jinja template: the text is the release's, written by `owl3.template`.
        """
        if chat_template is not None:
            raise InputError("chat_template: this processor writes its release's text; choose the release instead")
        if tokenize:
            encoded = self(conversation, return_labels=not add_generation_prompt, **kwargs)
            return encoded if return_dict else encoded["input_ids"]
        is_batch = bool(conversation) and not isinstance(conversation[0], Mapping)
        texts = []
        for messages, images, videos, where in _batch(conversation, kwargs.get("images"), kwargs.get("videos")):
            read = read_messages(messages, images, videos, where)
            grids = self._grids(read, kwargs.get("cut_enable"))
            chunks = self._chunks(read, grids, kwargs.get("style") or self.style, add_generation_prompt)
            texts.append("".join(chunk.text for chunk in chunks))
        return texts if is_batch else texts[0]

    @property
    def model_input_names(self) -> list[str]:
        """What `__call__` returns."""
        return ["input_ids", "attention_mask", "pixel_values", "image_rows", "image_starts"]

    def _chunks(
        self, conversation: Conversation, grids: Mapping[int, Grid], style: Style, for_generation: bool
    ) -> list[Chunk]:
        return render(
            conversation.segments,
            conversation.turns,
            release=self.release,
            style=style,
            grids=grids,
            for_generation=for_generation,
        )

    def _grids(self, conversation: Conversation, cut_enable: bool | None) -> dict[int, Grid]:
        """How each image is cut, by medium number; frames never are."""
        old = self.release == "240728"
        if cut_enable is None:
            cut_enable = self.image_processor.cut_enable and not (old and conversation.num_images > 1)
        if not cut_enable or (old and conversation.has_video):
            return {}
        media = [segment.image for segment in conversation.segments if segment.image is not None]
        return {medium: self.image_processor.grid(conversation.pictures[medium]) for medium in media}


def to_transformers(tokenizer: TextTokenizer) -> Qwen2Tokenizer:
    """The same tokenizer as transformers' class, with the ends of text and turn where `generate` looks for them."""
    return Qwen2Tokenizer(
        tokenizer_object=tokenizer.backend,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        unk_token=None,
        extra_special_tokens=[TURN_START],
        clean_up_tokenization_spaces=False,
    )


def read_messages(
    messages: Sequence[Message], images: Sequence[Any] | None, videos: Sequence[Any] | None, where: str = "messages"
) -> Conversation:
    """Pair the messages' placeholders with pictures.

    Raises:
        InputError: naming the message, for an unknown role, an empty message, a control token in the text, or pictures
            that are more or fewer than their placeholders.
    """
    if not messages:
        raise InputError(f"{where}: no message; give at least one of role user")
    conversation = Conversation()
    queues = {"image": list(images or []), "video": list(videos or [])}
    given = {kind: len(queue) for kind, queue in queues.items()}
    used = dict.fromkeys(queues, 0)
    for index, message in enumerate(messages):
        role, start = message.get("role"), len(conversation.segments)
        here = f"{where}[{index}]"
        if role not in _ROLES:
            raise InputError(f"{here}: unknown role {role!r}; one of {', '.join(_ROLES)}")
        for part in _parts(message.get("content"), here):
            kind = part["type"]
            if kind == "text":
                conversation.segments.append(Segment(text=part["text"]))
                continue
            picture = part.get(kind)
            if picture is None:
                if not queues[kind]:
                    raise InputError(f"{here}: a placeholder for {kind} {used[kind] + 1}, but {given[kind]} given")
                picture = queues[kind].pop(0)
                used[kind] += 1
            _add_medium(conversation, kind, picture, here)
        is_open_answer = role == "assistant" and index == len(messages) - 1
        if len(conversation.segments) == start and not is_open_answer:
            raise InputError(f"{here}: the {role}'s message is empty")
        conversation.turns.append(Turn(role=cast(Role, role), start=start, end=len(conversation.segments)))
    for kind, queue in queues.items():
        if queue:
            raise InputError(f"{where}: {given[kind]} {kind}s given, but {used[kind]} placeholders <|{kind}|>")
    return conversation


def pad_texts(
    texts: Sequence[TokenizedText], pad_id: int, side: str, *, with_labels: bool = False
) -> dict[str, Tensor]:
    """Rows of one sample each, padded on one side, as tensors of the model's contract.

    Raises:
        InputError: for a side that is neither left nor right.
    """
    if side not in ("left", "right"):
        raise InputError(f"padding_side {side!r}: one of left, right")
    longest = max(len(text.input_ids) for text in texts)
    shape = (len(texts), longest)
    ids, mask = torch.full(shape, pad_id), torch.zeros(shape, dtype=torch.int64)
    labels = torch.full(shape, -100)
    rows: list[int] = []
    starts: list[int] = []
    for row, text in enumerate(texts):
        length = len(text.input_ids)
        first = longest - length if side == "left" else 0
        span = slice(first, first + length)
        ids[row, span] = torch.tensor(text.input_ids)
        mask[row, span] = 1
        labels[row, span] = ids[row, span].where(torch.tensor(text.trained), -100)
        rows += [row] * len(text.image_starts)
        starts += [first + start for start in text.image_starts]
    data = {"input_ids": ids, "attention_mask": mask}
    if rows:
        data |= {"image_rows": torch.tensor(rows), "image_starts": torch.tensor(starts)}
    return data | ({"labels": labels} if with_labels else {})


def _batch(
    messages: Sequence[Any], images: Sequence[Any] | None, videos: Sequence[Any] | None
) -> Iterator[tuple[Sequence[Message], Sequence[Any] | None, Sequence[Any] | None, str]]:
    """Each conversation with its own images and videos, and what to call it in an error."""
    if not messages or isinstance(messages[0], Mapping):
        yield messages, images, videos, "messages"
        return
    for name, media in (("images", images), ("videos", videos)):
        if media is not None and len(media) != len(messages):
            raise InputError(f"{name}: {len(media)} lists for {len(messages)} conversations; give one per conversation")
    for index, each in enumerate(messages):
        yield each, images and images[index], videos and videos[index], f"messages[{index}]"


def _parts(content: Any, where: str) -> Iterator[dict[str, Any]]:
    """The parts of a message's content, placeholders in text replaced by parts of their own."""
    if isinstance(content, str) or content is None:
        content = [{"type": "text", "text": content or ""}]
    for part in content:
        kind = part.get("type")
        if kind not in ("text", "image", "video"):
            raise InputError(f"{where}: unknown part type {kind!r}; one of text, image, video")
        if kind != "text":
            yield part
            continue
        for piece in _MARK.split(part["text"]):
            if _MARK.fullmatch(piece):
                yield {"type": piece.strip("<|>")}
            elif token := control_token_in(piece):
                raise InputError(f"{where}: the text holds the control token {token}; take it out")
            elif piece:
                yield {"type": "text", "text": piece}


def _add_medium(conversation: Conversation, kind: str, picture: Any, where: str) -> None:
    if kind == "image":
        conversation.segments.append(Segment(image=len(conversation.pictures)))
        conversation.pictures.append(picture)
        return
    frames = list(picture)
    if not frames:
        raise InputError(f"{where}: a video without frames")
    conversation.has_video = True
    for time, frame in enumerate(frames):
        conversation.segments.append(Segment(frame=len(conversation.pictures), time_s=float(time)))
        conversation.pictures.append(frame)

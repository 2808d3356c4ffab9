"""Which class builds what a recipe asks for."""

from typing import Any

from owl3.build.base import Builder
from owl3.build.caption import CaptionBuilder
from owl3.build.config import (
    BuildBase,
    CaptionBuild,
    DistractorBuild,
    InstructBuild,
    InterleavedCaptionBuild,
    LongImageBuild,
    SelectiveCaptionBuild,
    TextBuild,
    TextReadingBuild,
    VideoBuild,
)
from owl3.build.conversations import InstructBuilder, TextBuilder
from owl3.build.distractor import DistractorBuilder
from owl3.build.interleaved import InterleavedCaptionBuilder
from owl3.build.long_image import LongImageBuilder
from owl3.build.selective import SelectiveCaptionBuilder
from owl3.build.text_reading import TextReadingBuilder
from owl3.build.video import VideoCaptionBuilder, VideoQuestionBuilder

_CLASSES: dict[type[BuildBase], type[Builder[Any]]] = {
    CaptionBuild: CaptionBuilder,
    InterleavedCaptionBuild: InterleavedCaptionBuilder,
    SelectiveCaptionBuild: SelectiveCaptionBuilder,
    LongImageBuild: LongImageBuilder,
    DistractorBuild: DistractorBuilder,
    InstructBuild: InstructBuilder,
    TextBuild: TextBuilder,
    TextReadingBuild: TextReadingBuilder,
}


def builder_class(cfg: BuildBase) -> type[Builder[Any]]:
    """The builder of a config; a video set without question files is built from captions."""
    if isinstance(cfg, VideoBuild):
        return VideoQuestionBuilder if cfg.files else VideoCaptionBuilder
    return _CLASSES[type(cfg)]

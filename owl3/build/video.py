"""`video`: frames of a clip with its caption, or with questions about it (facts/owl3.md §2.5, §3.3).

user: [frame 0.5 s] [frame 1.5 s] … Describe the video briefly.   assistant: a dog runs after a ball
user: [frame 0.5 s] … What does the dog run after?                assistant: A ball.

Templates of the releases (`<|start_video_frame|>` …) are the processor's business: a sample holds frames and times.
"""

import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from owl3.build.base import PoolBuilder
from owl3.build.config import VideoBuild
from owl3.build.conversations import ConversationBuilder
from owl3.build.drafts import Draft, Medium, Part, Refused, Script, clean_text
from owl3.build.finder import Found
from owl3.build.frames import FrameSet, frames_of_folder, sample_frames
from owl3.build.importers.record import MediaName, Record
from owl3.build.media_reader import Gone, MediaReader
from owl3.build.pool import medium_of
from owl3.media import MediaError

_CLIPS_KEPT = 4
"""Decoded clips kept per process: several questions about one clip usually stand side by side."""


class _Clips:
    """Frames of clips, wherever they lie."""

    def __init__(self, cfg: VideoBuild, workspace: Path) -> None:
        self._cfg = cfg
        self._reader = MediaReader(workspace)
        self.frames = lru_cache(maxsize=_CLIPS_KEPT)(self._frames)

    def _frames(self, clip: Medium) -> FrameSet:
        """Sample a clip: of a shard set, a file or folder of frames, or bytes that stood in a row.

        Raises:
            Refused: when it is gone, no clip, or gives too few frames.
        """
        place = clip.place
        try:
            if place is not None and place.num_bytes < 0:
                path = Path(place.path)
                return (frames_of_folder if path.is_dir() else sample_frames)(path, self._cfg.frames)
            with tempfile.NamedTemporaryFile() as copy:  # PyAV wants a name; what is in it decides how it is read
                copy.write(clip.data or self._reader.read(clip))
                copy.flush()
                return sample_frames(Path(copy.name), self._cfg.frames)
        except (Gone, MediaError) as error:
            where = f"{place.path} at {place.offset}" if place is not None else "a clip inside its row"
            raise Refused(error.reason, f"{where}: {error}") from error


class VideoCaptionBuilder(PoolBuilder[VideoBuild]):
    """Clips of the shard sets with their captions."""

    code_version = "1"
    words = "video"

    def __init__(self, cfg: VideoBuild, workspace: Path, work: Path) -> None:
        super().__init__(cfg, workspace, work)
        self._clips = _Clips(cfg, workspace)

    def draft(self, ordinal: int, rows: Sequence[int]) -> Draft:
        """See `Builder`."""
        parent = self.pool[rows[0]]
        caption = clean_text(parent["caption"] or "")
        if not caption:
            raise Refused("empty_text")
        frames = self._clips.frames(medium_of(parent))
        templates = self.templates()
        assert templates is not None
        ask = templates.pick("ask", self.language(caption), self.dice(ordinal))
        script = Script()
        script.turn("user", *frames.media, ask)
        script.turn("assistant", caption)
        return Draft(
            kind="video",
            script=script,
            parents=(parent["sample_id"],),
            source=parent["source"] or "unknown",
            licence=parent["licence"] or "unknown",
            extra=f"{ask} {frames.facts}",
            meta={"frames": frames.facts},
        )


class VideoQuestionBuilder(ConversationBuilder[VideoBuild]):
    """Conversations about clips."""

    code_version = "1"
    kind = "video"

    def __init__(self, cfg: VideoBuild, workspace: Path, work: Path) -> None:
        super().__init__(cfg, workspace, work)
        self._clips = _Clips(cfg, workspace)

    def media_of(self, media: MediaName, meta: dict[str, Any]) -> tuple[list[Part], Found]:
        """Frames for a clip; a picture stays a picture."""
        found = self.finder.find(media)
        if media.kind == "image":
            return [found.medium], found
        frames = self._clips.frames(found.medium)
        meta["frames"] = frames.facts
        return list(frames.media), found

    def check(self, record: Record) -> None:
        """Only rows about a clip are this builder's."""
        if all(media.kind != "video" for media in record.media):
            raise Refused("not_selected", "the row names no clip; the instruct builder takes such rows")

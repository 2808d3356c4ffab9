"""Frames of clips: right moments, short clips, turned clips, and what is no clip."""

import json
import struct
from base64 import b64encode
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from owl3.build.config import BUILD_CONFIG, Frames
from owl3.build.drafts import Refused
from owl3.build.frames import frames_of_folder, sample_frames
from owl3.build.run import build
from owl3.errors import InputError
from owl3.media import MediaError
from owl3.samples import Sample
from owl3.shards import iter_samples
from tests.build.world import picture, write_shards


def write_clip(
    path: Path, greys: list[int], fps: int = 8, times: list[int] | None = None, audio_at_s: int | None = None
) -> Path:
    """A clip of plain frames; `times` (in 1/fps) makes its rate vary."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"qp": "10", "preset": "ultrafast", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, fps)
        sound = container.add_stream("aac", rate=8000) if audio_at_s is not None else None
        for number, grey in enumerate(greys):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), grey, np.uint8), format="rgb24")
            frame.pts = times[number] if times else number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
            silence.rate, silence.pts, silence.time_base = 8000, 8000 * (audio_at_s or 0), Fraction(1, 8000)
            container.mux(sound.encode(silence))
            container.mux(sound.encode(None))
    return path


def times_of(path: Path, **fields: Any) -> list[float]:
    """When the sampled frames are shown."""
    return [medium.time_s or 0.0 for medium in sample_frames(path, Frames(**fields)).media]


def test_uniform_takes_middles_of_equal_parts(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", list(range(0, 160, 10)))
    assert times_of(clip, count=4) == [0.25, 0.75, 1.25, 1.75]


def test_fps_takes_so_many_per_second_and_no_more_than_count(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", list(range(0, 240, 10)))
    assert times_of(clip, policy="fps", fps=2, count=128) == [0.25, 0.75, 1.25, 1.75, 2.25, 2.75]
    assert len(times_of(clip, policy="fps", fps=2, count=3)) == 3


def test_scenes_takes_the_middle_of_each_shot(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", [10] * 8 + [200] * 16 + [90] * 8)
    assert times_of(clip, policy="scenes", count=8) == pytest.approx([0.5, 2.0, 3.5], abs=0.26)


def test_a_clip_with_fewer_frames_than_asked(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", [0, 80, 160])
    fewer = sample_frames(clip, Frames(count=8))
    assert (len(fewer.media), fewer.facts["asked"], fewer.facts["repeated"]) == (3, 8, 0)
    repeated = sample_frames(clip, Frames(count=8, on_short="repeat"))
    assert (len(repeated.media), repeated.facts["repeated"]) == (8, 5)
    assert [medium.time_s for medium in repeated.media] == sorted(medium.time_s or 0 for medium in repeated.media)
    with pytest.raises(Refused) as refused:
        sample_frames(clip, Frames(count=8, min=4))
    assert refused.value.reason == "too_few_frames"


def test_a_varying_rate_keeps_true_times(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", [0, 50, 100, 150, 200], fps=10, times=[0, 1, 2, 3, 29])
    times = times_of(clip, count=6)
    assert times == sorted(times)
    assert set(times) <= {0.0, 0.1, 0.2, 0.3, 2.9}


def test_audio_that_begins_after_the_pictures_moves_no_frame(tmp_path: Path) -> None:
    quiet = write_clip(tmp_path / "a.mp4", [0, 60, 120] * 4)
    loud = write_clip(tmp_path / "b.mp4", [0, 60, 120] * 4, audio_at_s=60)
    with av.open(str(loud)) as container:
        assert (container.duration or 0) > 60_000_000, "the file lasts longer than its pictures"
    assert times_of(quiet, count=4) == times_of(loud, count=4)


def test_a_clip_that_lies_on_its_side_is_put_upright(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", [0, 60, 120])
    data = bytearray(clip.read_bytes())
    quarter_turn = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    matrix = data.index(b"tkhd") + 44  # in the track header's box, version 0
    data[matrix : matrix + 36] = quarter_turn
    clip.write_bytes(bytes(data))
    medium = sample_frames(clip, Frames(count=1)).media[0]
    assert (medium.width, medium.height) == (48, 64)


def test_frames_are_made_small_and_keep_their_shape(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", [0, 60, 120])
    medium = sample_frames(clip, Frames(count=1, max_side_px=32)).media[0]
    assert (medium.width, medium.height) == (32, 24)


def test_what_is_no_clip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(picture(1, picture_format="JPEG"))
    with pytest.raises(MediaError) as error:
        sample_frames(tmp_path / "a.mp4", Frames())
    assert error.value.reason == "not_a_video"


def test_a_folder_of_frames_is_a_clip_too(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"c01_{number:02d}.png").write_bytes(picture(number))
    found = frames_of_folder(tmp_path, Frames(count=5))
    assert [medium.time_s for medium in found.media] == [1.0, 3.0, 5.0, 7.0, 9.0]
    assert found.facts["times"] == "frame numbers"


@pytest.fixture
def clips(workspace: Path) -> Path:
    """A shard set of two clips and one picture that is named a clip."""
    rows = []
    for number, greys in enumerate(([0, 50, 100, 150] * 4, [200, 10] * 8)):
        path = write_clip(workspace / f"{number}.mp4", list(greys))
        rows.append(
            {"url": f"http://clips.owl3.test/{number}.mp4", "caption": f"clip {number}", "data": path.read_bytes()}
        )
    rows.append(
        {"url": "http://clips.owl3.test/2.mp4", "caption": "no clip", "data": picture(1, picture_format="JPEG")}
    )
    common = {"decision": "kept", "reason": None, "source": "made", "licence": "CC0-1.0", "extension": "mp4"}
    write_shards(workspace, "clips", [common | row for row in rows])
    return workspace


def samples(workspace: Path, **fields: Any) -> list[Sample]:
    """Build a video set."""
    base = {"name": "made", "builder": "video", "tokenizer": "tiny", "frames": {"count": 4}}
    build(BUILD_CONFIG.validate_python(base | fields), workspace)
    tar = workspace / "samples" / str(fields.get("name", "made")) / "00000.tar"
    return [Sample.model_validate_json(members["json"]) for _, members in iter_samples(tar)]


def dropped(workspace: Path, name: str = "made") -> dict[str, int]:
    """Drops by reason."""
    return json.loads((workspace / "samples" / name / "manifest.json").read_text())["counts"]["dropped"]


def test_clips_become_frames_and_captions(clips: Path) -> None:
    made = samples(clips, shards=["clips"])
    assert [sample.segments[-1].text for sample in made] == ["clip 0", "clip 1"]
    assert [segment.time_s for segment in made[0].segments if segment.frame is not None] == [0.25, 0.75, 1.25, 1.75]
    assert made[0].meta["frames"]["taken"] == 4
    assert dropped(clips) == {"not_a_video": 1}


def test_questions_about_clips_find_them_by_url(clips: Path) -> None:
    def row(url: str) -> dict[str, Any]:
        said = [{"from": "human", "value": "<video>What happens?"}, {"from": "gpt", "value": "It gets light."}]
        return {"video": url, "conversations": said}

    urls = ["http://clips.owl3.test/0.mp4", "http://clips.owl3.test/1.mp4", "http://gone/1.mp4"]
    (clips / "qa.json").write_text(json.dumps(list(map(row, urls))))
    made = samples(clips, shards=["clips"], files=["qa.json"])
    assert len(made) == 2
    assert [segment.text for segment in made[0].segments[-2:]] == ["What happens?", "It gets light."]
    assert made[0].kind == "video"
    assert dropped(clips) == {"missing_media": 1}


def test_clips_and_frame_folders_lie_under_a_root(workspace: Path) -> None:
    root = workspace / "media"
    (root / "v_frames").mkdir(parents=True)
    for number in range(3):
        (root / "v_frames" / f"{number}.png").write_bytes(picture(number))
    write_clip(root / "v_clip.mp4", [0, 100, 200])
    rows = [{"q": "What?", "a": "That.", "video_id": name} for name in ("v_frames", "v_clip", "../v_clip")]
    (workspace / "qa.json").write_text(json.dumps(rows))
    made = samples(workspace, files=["qa.json"], media_root="media")
    assert [sample.num_media for sample in made] == [3, 3]
    assert dropped(workspace) == {"unsafe_path": 1}


def test_a_clip_may_be_spelt_out_in_the_row(workspace: Path) -> None:
    clip = write_clip(workspace / "clip.mp4", [0, 100, 200]).read_bytes()
    said = [{"from": "human", "value": "<video>What happens?"}, {"from": "gpt", "value": "It gets light."}]
    rows = [
        {"video": f"data:video/mp4;base64,{b64encode(data).decode()}", "conversations": said}
        for data in (clip, b"no clip")
    ]
    (workspace / "qa.json").write_text(json.dumps(rows))
    (made,) = samples(workspace, files=["qa.json"])
    assert made.num_media == 3
    assert dropped(workspace) == {"not_a_video": 1}


def test_a_set_without_clips_is_an_error(workspace: Path) -> None:
    (workspace / "qa.json").write_text(json.dumps([{"text": "no clip here"}]))
    with pytest.raises(InputError, match=r"not one sample was kept \(not_selected 1\)"):
        samples(workspace, files=["qa.json"])

"""Messages and pictures to tensors; what can't be used is named."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from owl3.errors import InputError
from owl3.model.image_processing import Owl3ImageProcessor, normalise, picture_pixels, to_rgb
from owl3.model.processing import Owl3Processor
from owl3.template import Release
from owl3.tokens import train_tiny
from tests.model.conftest import VOCAB, tiny_config, tiny_model

TOKENIZER = train_tiny(["what is it"], 400)
RED, BLUE = Image.new("RGB", (90, 60), (255, 0, 0)), Image.new("RGB", (20, 20), (0, 0, 255))


def make(release: Release = "241101", cut: bool = False) -> Owl3Processor:
    processor = Owl3Processor.of(tiny_config(), TOKENIZER, release)
    processor.image_processor.cut_enable = cut
    return processor


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def shown(processor: Owl3Processor, encoded: Any, row: int = 0) -> str:
    return str(processor.tokenizer.decode(encoded["input_ids"][row]))


def test_nothing_that_is_passed_in_is_changed() -> None:
    messages = [user("<|image|> and <|video|>"), {"role": "assistant", "content": "yes"}]
    images, videos = [RED], [[BLUE, RED]]
    before = copy.deepcopy((messages, images, videos))
    first, second = (make()(messages, images=images, videos=videos) for _ in range(2))
    assert (messages, images, videos) == before
    assert torch.equal(first["input_ids"], second["input_ids"])


def test_text_marks_and_typed_parts_say_the_same() -> None:
    processor = make()
    marks = processor([user("A <|image|> B <|image|>?")], images=[RED, BLUE])
    parts = [
        {"type": "text", "text": "A "},
        {"type": "image", "image": RED},
        {"type": "text", "text": " B "},
        {"type": "image"},
        {"type": "text", "text": "?"},
    ]
    typed = processor([user(parts)], images=[BLUE])
    assert marks.keys() == typed.keys()
    assert all(torch.equal(marks[name], typed[name]) for name in marks)


def test_an_image_may_stand_before_a_video() -> None:
    """The released processor consumes all videos first, and fails on this."""
    encoded = make()([user("<|image|><|video|>")], images=[RED], videos=[[BLUE, BLUE]])
    assert len(encoded["image_starts"]) == 3
    assert encoded["pixel_values"][0, 0].mean() == 1 and encoded["pixel_values"][1, 2].mean() == 1


def test_a_batch_pads_on_either_side_and_shifts_its_images() -> None:
    processor = make()
    conversations = [[user("Hi")], [user("<|image|>What is it?")], [user("<|image|><|image|>")]]
    images = [None, [RED], [BLUE, RED]]
    for side in ("left", "right"):
        encoded = processor(conversations, images=images, padding_side=side)
        for row, (messages, own) in enumerate(zip(conversations, images, strict=True)):
            alone = processor(messages, images=own)
            real = encoded["attention_mask"][row].bool()
            assert encoded["input_ids"][row, real].tolist() == alone["input_ids"][0].tolist()
            starts = encoded["image_starts"][encoded["image_rows"] == row]
            for start in starts:
                assert tuple(encoded["input_ids"][row, start : start + 5].tolist()) == TOKENIZER.placeholder_ids
            assert len(starts) == len(own or [])
        assert encoded["input_ids"][~encoded["attention_mask"].bool()].unique().tolist() == [TOKENIZER.end_of_text_id]
    assert processor(conversations, images=images)["attention_mask"][0, 0] == 0  # left, to generate


def test_what_it_makes_the_model_takes() -> None:
    processor = Owl3Processor.of(tiny_config(), TOKENIZER)
    encoded = processor([[user("<|image|>?")], [user("Hi")]], images=[[RED], None])
    encoded["input_ids"] %= VOCAB
    assert encoded["pixel_values"].shape == (7, 3, 28, 28)  # two rows, three columns, the whole
    with torch.no_grad():
        assert tiny_model()(**encoded).logits.isfinite().all()


def test_labels_train_answers_and_their_ends_alone() -> None:
    processor = make()
    messages = [
        user("<|image|>a"),
        {"role": "assistant", "content": "b"},
        user("c"),
        {"role": "assistant", "content": "d"},
    ]
    encoded = processor(messages, images=[RED], return_labels=True)
    trained = encoded["labels"][0][encoded["labels"][0] >= 0]
    assert processor.tokenizer.decode(trained) == "b<|im_end|><|endoftext|>d<|im_end|><|endoftext|>"
    assert torch.equal(encoded["labels"][encoded["labels"] >= 0], encoded["input_ids"][encoded["labels"] >= 0])
    assert "labels" not in processor(messages, images=[RED])


def test_system_prompts_and_turns_in_the_text() -> None:
    processor = make()
    text = processor.apply_chat_template(
        [{"role": "system", "content": "Be brief."}, user("<|image|>?")], images=[RED], add_generation_prompt=True
    )
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<|image|>?<|im_end|>\n<|im_start|>assistant\n"
    )
    encoded = processor.apply_chat_template(
        [user("<|image|>?")], images=[RED], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    assert shown(processor, encoded) == processor.apply_chat_template(
        [user("<|image|>?")], images=[RED], add_generation_prompt=True
    )
    assert processor.apply_chat_template([[user("a")], [user("b")]])[1].endswith("user\nb<|im_end|>")
    with pytest.raises(InputError, match="chat_template: this processor writes its release's text"):
        processor.apply_chat_template([user("a")], chat_template="{{ x }}")


@pytest.mark.parametrize(
    ("release", "images", "videos", "pictures"),
    [
        ("240728", [RED], [], 7),  # one image: cut into 2 x 3 and the whole
        ("240728", [RED, RED], [], 2),  # never trained with several cut images
        ("241014", [RED, RED], [], 14),
        ("241101", [RED], [[BLUE]], 8),  # frames are never cut
    ],
)
def test_images_are_cut_as_the_release_was_trained(
    release: Release, images: list[Any], videos: list[Any], pictures: int
) -> None:
    content = "<|image|>" * len(images) + "<|video|>" * len(videos)
    encoded = make(release, cut=True)([user(content)], images=images, videos=videos)
    assert len(encoded["pixel_values"]) == len(encoded["image_starts"]) == pictures


def test_the_oldest_release_cuts_nothing_beside_a_video() -> None:
    encoded = make("240728", cut=True)([user("<|image|><|video|>")], images=[RED], videos=[[BLUE]], cut_enable=True)
    assert len(encoded["pixel_values"]) == 2


def test_truncation_drops_the_pictures_that_no_longer_stand_in_the_text() -> None:
    processor = make()
    messages = [user("<|image|> some words <|image|>")]
    whole = processor(messages, images=[RED, BLUE])
    second = int(whole["image_starts"][1])
    for limit, kept in ((second + 5, 2), (second + 4, 1), (second, 1)):
        encoded = processor(messages, images=[RED, BLUE], max_length=limit)
        assert encoded["input_ids"].shape[1] <= limit
        assert len(encoded["pixel_values"]) == len(encoded["image_starts"]) == kept


def test_cut_pictures_are_tiles_row_by_row_then_the_whole() -> None:
    pixels = np.zeros((56, 84, 3), dtype=np.uint8)
    for tile in range(6):
        row, column = divmod(tile, 3)
        pixels[row * 28 : row * 28 + 28, column * 28 : column * 28 + 28] = 40 * tile
    cut = picture_pixels(Image.fromarray(pixels), 28, (2, 3))
    assert cut.shape == (7, 3, 28, 28)
    assert [round(float(t[0, 14, 14]), 3) for t in cut[:6]] == [round(40 * i * 2 / 255 - 1, 3) for i in range(6)]
    assert np.array_equal(cut[6:], picture_pixels(Image.fromarray(pixels), 28))


def test_pixels_are_scaled_to_minus_one_and_one() -> None:
    assert normalise(np.array([0, 255], dtype=np.uint8)).tolist() == [-1, 1]


# ------------------------------------------------------------------------------------------------- odd pictures


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "F"])
def test_any_mode_is_read(mode: str) -> None:
    assert to_rgb(RED.convert("L").convert(mode) if mode in "1F" else RED.convert(mode)).mode == "RGB"


def test_transparent_pictures_stand_on_white() -> None:
    half = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    half.putpixel((1, 0), (0, 255, 0, 0))
    assert [to_rgb(half).getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (255, 255, 255)]
    palette = half.convert("P")
    palette.info["transparency"] = palette.getpixel((1, 0))
    assert to_rgb(palette).getpixel((1, 0)) == (255, 255, 255)


def test_sixteen_bit_greys_are_scaled_not_clipped() -> None:
    grey = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
    assert [to_rgb(grey).getpixel((x, 0)) for x in range(3)] == [(0, 0, 0), (128, 128, 128), (255, 255, 255)]


def test_an_animation_is_its_first_frame(tmp_path: Any) -> None:
    RED.save(tmp_path / "a.gif", save_all=True, append_images=[BLUE.resize(RED.size)])
    with Image.open(tmp_path / "a.gif") as moving:
        moving.seek(1)
        assert to_rgb(moving).getpixel((5, 5)) == (255, 0, 0)


@pytest.mark.parametrize("size", [(1, 1), (20000, 10), (3, 900)])
def test_extreme_shapes_are_read(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    encoded = Owl3ImageProcessor(image_size=28)([image], cut_enable=True)
    rows, columns = encoded["grids"][0]
    assert encoded["pixel_values"].shape == (rows * columns + 1, 3, 28, 28)


# ------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("messages", "images", "message"),
    [
        ([], None, "messages: no message; give at least one of role user"),
        ([user("<|image|><|image|>")], [RED], r"messages\[0\]: a placeholder for image 2, but 1 given"),
        ([user("<|image|>")], [RED, RED], r"messages: 2 images given, but 1 placeholders <\|image\|>"),
        ([user("hi")], [RED], "1 images given, but 0 placeholders"),
        ([user("<|video|>")], [RED], "a placeholder for video 1, but 0 given"),
        ([user("")], None, r"messages\[0\]: the user's message is empty"),
        (
            [user("a"), {"role": "assistant", "content": ""}, user("b")],
            None,
            r"\[1\]: the assistant's message is empty",
        ),
        ([{"role": "tool", "content": "a"}], None, "unknown role 'tool'; one of system, user, assistant"),
        ([user([{"type": "audio"}])], None, "unknown part type 'audio'; one of text, image, video"),
        ([user("a <|im_end|> b")], None, r"the text holds the control token <\|im_end\|>; take it out"),
        ([user("<|image|>")], ["a.jpg"], "an image must be a PIL.Image, this is a str"),
        ([[user("a")], [user("")]], None, r"messages\[1\]\[0\]: the user's message is empty"),
        ([[user("a")], [user("b")]], [[RED]], "images: 1 lists for 2 conversations"),
    ],
)
def test_what_cannot_be_used_is_named(messages: Any, images: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()(messages, images=images)


def test_a_video_without_frames_and_an_unknown_side_are_named() -> None:
    with pytest.raises(InputError, match="a video without frames"):
        make()([user("<|video|>")], videos=[[]])
    with pytest.raises(InputError, match="padding_side 'top': one of left, right"):
        make()([user("a")], padding_side="top")


def test_a_processor_saved_beside_a_plainly_trained_model_asks_plainly(tmp_path: Path) -> None:
    chat = make()
    plain = Owl3Processor(chat.image_processor, chat.tokenizer, style="plain")
    plain.save_pretrained(tmp_path)
    asked = [{"role": "user", "content": "What is it?"}]
    for processor in (plain, Owl3Processor.from_pretrained(tmp_path)):
        assert processor.apply_chat_template(asked, add_generation_prompt=True) == "What is it?"
        assert processor(asked)["input_ids"].tolist() == chat(asked, style="plain")["input_ids"].tolist()
        assert processor(asked, style="chat")["input_ids"].tolist() == chat(asked)["input_ids"].tolist()

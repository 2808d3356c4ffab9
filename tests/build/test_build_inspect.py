"""Samples shown to people."""

import io
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from owl3.build.config import BUILD_CONFIG
from owl3.build.inspect import as_text, show_samples
from owl3.build.run import build
from owl3.build.sheets import html_sheet, png_sheet
from owl3.errors import InputError


@pytest.fixture
def made(workspace: Path, photos: Callable[..., Path]) -> Path:
    """Ten samples of four images, over several shards, as references."""
    photos(40)
    fields = {"name": "made", "builder": "selective_caption", "shards": ["photos"], "tokenizer": "tiny"}
    build(BUILD_CONFIG.validate_python(fields | {"samples_per_shard": 3, "store": "references"}), workspace)
    return workspace / "samples/made"


def test_text_shows_media_in_reading_order(made: Path) -> None:
    shown = show_samples(made, made.parents[1], random=1)[0]
    lines = as_text(shown).splitlines()
    assert lines[0].startswith(f"{shown.sample.id}  selective  selective_caption 1.1")
    assert lines[2] == "user: Image 1: ‹image 0: 48 x 32›"
    assert lines[-1] == f"assistant: {shown.sample.segments[-1].text}"


def test_a_choice_is_the_same_each_time_and_another_with_another_seed(made: Path) -> None:
    def ids(seed: int) -> list[str]:
        return [shown.sample.id for shown in show_samples(made, made.parents[1], random=4, seed=seed)]

    assert ids(0) == ids(0)
    assert ids(0) != ids(1)
    assert len(set(ids(0))) == 4


def test_samples_are_found_by_key_or_its_beginning(made: Path) -> None:
    wanted = [shown.sample.id for shown in show_samples(made, made.parents[1], random=10)][7]
    found = show_samples(made, made.parents[1], keys=[wanted[:12]])
    assert [shown.sample.id for shown in found] == [wanted]
    with pytest.raises(InputError, match="keeps no sample zzz"):
        show_samples(made, made.parents[1], keys=["zzz"])


def test_contact_sheets_are_png_or_html(made: Path, tmp_path: Path) -> None:
    show_samples(made, made.parents[1], random=2, sheet=tmp_path / "s.png")
    image = Image.open(tmp_path / "s.png")
    assert image.size[0] == 1200
    show_samples(made, made.parents[1], random=2, sheet=tmp_path / "s.html")
    page = (tmp_path / "s.html").read_text()
    assert page.count("<article>") == 2
    assert page.count("data:image/jpeg;base64,") == 8
    with pytest.raises(InputError, match="a contact sheet is"):
        show_samples(made, made.parents[1], sheet=tmp_path / "s.pdf")


def test_a_sample_whose_pictures_are_gone_is_still_shown(made: Path, tmp_path: Path) -> None:
    for tar in (made.parents[1] / "shards/photos").glob("*.tar"):
        tar.unlink()
    shown = show_samples(made, made.parents[1], random=1, sheet=tmp_path / "s.html")
    assert shown[0].media == (None,) * 4
    assert "is gone" in (tmp_path / "s.html").read_text()
    show_samples(made, made.parents[1], random=1, sheet=tmp_path / "s.png")


def test_a_page_of_samples_fits_a_phone_and_asks_for_nothing(made: Path, tmp_path: Path) -> None:
    show_samples(made, made.parents[1], random=2, sheet=tmp_path / "s.html")
    page = (tmp_path / "s.html").read_text()
    assert '<meta name="viewport"' in page
    assert "default-src 'none'" in page
    assert "<html lang=" in page


def test_an_answer_stands_behind_its_question(made: Path, tmp_path: Path) -> None:
    """Conversations of six turns would be twelve lines else."""
    [shown] = show_samples(made, made.parents[1], random=1)
    turns = [str(turn.role) for turn in shown.sample.turns]
    page = html_sheet("s", [shown])
    questions = len(turns) - sum(pair == ("user", "assistant") for pair in itertools.pairwise(turns))
    assert page.count("<p>") == (questions or 1)


def test_samples_of_few_pictures_stand_in_two_columns(made: Path) -> None:
    several = show_samples(made, made.parents[1], random=4)
    apart = [Image.open(io.BytesIO(png_sheet([shown]))) for shown in several]
    together = Image.open(io.BytesIO(png_sheet(several)))
    assert together.width == apart[0].width == 1200
    assert together.height < 0.8 * sum(image.height for image in apart)

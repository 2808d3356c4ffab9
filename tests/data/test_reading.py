"""Samples by their place in a tar: whatever became of the bytes, it is a sample or one line that says what to do."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from owl3.data.ranges import LocalTars
from owl3.data.reading import SampleReader
from owl3.errors import InputError, Owl3Error
from owl3.planfile import TAR_BLOCK, Plan
from owl3.tokens import TextTokenizer
from tests.data.test_loader import write_and_plan


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory, tokenizer: TextTokenizer) -> Plan:
    return write_and_plan(tmp_path_factory.mktemp("workspace"), tokenizer)


class DamagedTars(LocalTars):
    """Gives bytes of which one was changed."""

    at, value = 0, 0

    def read(self, path: str, start: int, end: int, tar_bytes: int) -> bytes:
        """See `Tars`."""
        data = bytearray(super().read(path, start, end, tar_bytes))
        data[self.at % len(data)] = self.value
        return bytes(data)


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, 59), at=st.integers(0, 3 * TAR_BLOCK), value=st.integers(0, 255))
def test_a_changed_byte_gives_a_sample_or_names_the_shard(fixed: Plan, position: int, at: int, value: int) -> None:
    workspace = fixed.folder.parents[2]
    tars = DamagedTars(workspace)
    tars.at, tars.value = at, value
    reader = SampleReader(fixed, workspace, tars)
    try:
        stored = reader.read(position)
        assert len(stored.media) == stored.sample.num_media
    except Owl3Error as error:
        assert "0000" in str(error) and ".tar" in str(error)
    finally:
        reader.close()


def test_a_size_that_is_no_number_is_named(fixed: Plan) -> None:
    tars = DamagedTars(fixed.folder.parents[2])
    tars.at, tars.value = 130, ord("x")
    with pytest.raises(InputError, match=r"00000\.tar: .* the shard was rewritten or damaged after planning"):
        SampleReader(fixed, Path(fixed.folder.parents[2]), tars).read(0)

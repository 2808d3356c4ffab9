"""One small corpus for all tests of the demo's parts."""

from pathlib import Path

import pytest

from owl3.demo.corpus import ScenesConfig, make_corpus

SMALL = ScenesConfig(pictures=120, clips=4, conversations_among={3: 20}, questions=40, video_questions=8, among=(2,))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus folder, made once; tests only read it."""
    folder = tmp_path_factory.mktemp("demo") / "corpus"
    make_corpus(folder, SMALL)
    return folder

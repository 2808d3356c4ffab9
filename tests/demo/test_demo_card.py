"""The rendered card of the demo's corpus is a promise. When it changes on purpose: `make golden`, and CARD SCHEMA."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from demo.tiny import write_tiny_recipe
from owl3.cards.documents_check import compare_thumbnails, first_difference, without_thumbnails
from owl3.cards.render import DOCUMENTS, card
from owl3.demo.run import Account
from owl3.manifest import MANIFEST_NAME
from owl3.recipe import load_recipe

pytestmark = pytest.mark.xdist_group("demo")

DATACARDS = Path(__file__).parents[2] / "datacards"
VERSION = "1.0.0-tiny"
"""Of the demo's recipe cut down as for all tests: CI makes its corpus anew in seconds."""

_DIGEST = re.compile(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b|\b[0-9a-f]{16}\b")
"""Digests cover the versions of Python and of all tools; what a card says must not."""


def _comparable(name: str, text: str) -> str:
    return _DIGEST.sub("digest", without_thumbnails(text) if name == "card.html" else text)


@pytest.mark.processes
def test_golden_card_of_the_demo_corpus(demo_account: Account, demo_workspace: Path, tmp_path: Path) -> None:
    recipe = load_recipe(write_tiny_recipe(tmp_path / "tiny.yaml"))
    assert recipe.card is not None
    (tmp_path / "demo").mkdir()
    shutil.copy(DATACARDS / "demo" / "facts.yaml", tmp_path / "demo" / "facts.yaml")
    card(recipe.card.model_copy(update={"version": VERSION}), demo_workspace, tmp_path)
    made, golden = tmp_path / "demo" / VERSION, DATACARDS / "demo" / VERSION
    if os.environ.get("OWL3_WRITE_GOLDEN"):
        shutil.rmtree(golden, ignore_errors=True)
        shutil.copytree(made, golden)
        manifest = json.loads((golden / MANIFEST_NAME).read_bytes()) | {"started": "", "ended": "", "host": ""}
        (golden / MANIFEST_NAME).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for name in DOCUMENTS:
        stated, found = ((folder / name).read_text(encoding="utf-8") for folder in (golden, made))
        if name == "card.html":
            pictures = compare_thumbnails(stated, found)
            assert pictures.passed, f"{pictures.line()}; look at it, then `make golden`"
        left, right = _comparable(name, stated), _comparable(name, found)
        assert left == right, f"{first_difference(name, left, right).line()}; look at it, then `make golden`"

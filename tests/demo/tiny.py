"""The demo's recipe, cut down until its whole chain runs in under a minute; it learns nothing."""

from pathlib import Path
from typing import Any

import yaml

from owl3.recipe import RECIPES

CORPUS = {
    "kind": "scenes",
    "pictures": 120,
    "clips": 4,
    "conversations_among": {4: 20},
    "questions": 16,
    "video_questions": 4,
    "among": [2],
}


def write_tiny_recipe(path: Path, **changes: Any) -> Path:
    """Write the shrunk recipe; `changes` replace its top-level keys."""
    recipe = yaml.safe_load((RECIPES / "demo.yaml").read_text(encoding="utf-8"))
    recipe["corpus"] = CORPUS
    for entry in recipe["build"]:
        if isinstance(entry.get("count"), int):
            entry["count"] = 20
    for stage in recipe["stages"]:
        stage["data"].pop("epochs", None)
        stage["data"] |= {"steps": 4, "global_batch_size": 8}
        stage["data"]["mixture"]["max_epochs"] = 1000
        stage["save_steps"] = 2
    recipe["eval"]["tasks"] = [{"name": "scenes-single", "folder": "corpus/heldout/scenes-single", "limit": 8}]
    recipe["eval"]["gates"] = []
    path.write_text(yaml.safe_dump(recipe | changes, sort_keys=False), encoding="utf-8")
    return path

"""coco-captions: one sentence about a COCO photo (Chen et al. 2015).

Split: whatever captions file lies there (Karpathy's test split has 5000 pictures).
Metric: CIDEr-D (and BLEU-4, ROUGE-L). Prompt: ours, see `_captions.py`.

    {"image_id": 391895, "caption": "A man with a red helmet on a small moped on a dirt road."}
"""

from collections import defaultdict
from pathlib import Path

from owl3.eval.items import Item, Medium
from owl3.eval.metrics.captions import aggregate, weighed
from owl3.eval.task import Task
from owl3.eval.tasks._captions import IMAGE_PROMPT, caption_items, parse, score
from owl3.eval.tasks._files import find_files, media_path, need, read_json


def load(folder: Path) -> list[Item]:
    """`captions_*.json` in COCO's layout."""
    path = find_files(folder, "captions_val*.json", "annotations/captions_val*.json", "*captions*.json")[0]
    data = read_json(path)
    need(data, ("images", "annotations"), str(path))
    names = {row["id"]: row["file_name"] for row in data["images"]}
    said: dict[str, list[str]] = defaultdict(list)
    for row in data["annotations"]:
        said[names[row["image_id"]]].append(row["caption"].strip())
    media = {name: Medium(media_path(folder, name, "val2017", "val2014")) for name in said}
    return caption_items(media, said, IMAGE_PROMPT)


TASK = Task(
    name="coco-captions",
    version="3",
    load=load,
    parse=parse,
    score=score,
    aggregate=aggregate,
    units=weighed,
    is_share=False,
)

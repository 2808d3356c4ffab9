"""vatex-captions: one sentence about a clip of an action (Wang et al. 2019).

Split: public test, ten English references each. 8 frames. Metric: CIDEr-D (and BLEU-4, ROUGE-L).
Prompt: ours, see `_captions.py`.

    {"videoID": "Ptf_2VRj-V0_000122_000132", "enCap": ["A guy is by the stove in the kitchen cooking food.", …]}
"""

from pathlib import Path

from owl3.eval.items import Item
from owl3.eval.metrics.captions import aggregate, weighed
from owl3.eval.task import Task
from owl3.eval.tasks._captions import VIDEO_PROMPT, caption_items, clips, parse, score
from owl3.eval.tasks._files import find_files, need, read_json


def load(folder: Path) -> list[Item]:
    """VATEX's json of clips with `enCap`."""
    path = find_files(folder, "vatex_public_test*.json", "vatex_*.json", "*.json")[0]
    said: dict[str, list[str]] = {}
    for row in read_json(path):
        need(row, ("videoID", "enCap"), str(path))
        said[row["videoID"]] = row["enCap"]
    return caption_items(clips(folder, said), said, VIDEO_PROMPT)


TASK = Task(
    name="vatex-captions",
    version="3",
    load=load,
    parse=parse,
    score=score,
    aggregate=aggregate,
    units=weighed,
    is_share=False,
)

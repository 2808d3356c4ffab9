"""msvd-captions: one sentence about a short clip (Chen and Dolan 2011).

Split: test, 670 clips. 8 frames. Metric: CIDEr-D (and BLEU-4, ROUGE-L).
Prompt: ours, see `_captions.py`.

    mv89psg6zh4_33_46 a bird in a sink keeps getting under the running water from a faucet
"""

from collections import defaultdict
from pathlib import Path

from owl3.eval.items import Item
from owl3.eval.metrics.captions import aggregate, weighed
from owl3.eval.task import Task
from owl3.eval.tasks._captions import VIDEO_PROMPT, caption_items, clips, parse, score
from owl3.eval.tasks._files import find_files


def load(folder: Path) -> list[Item]:
    """`test.txt` or `AllVideoDescriptions.txt`: one clip's name and a sentence per line."""
    path = find_files(folder, "test.txt", "AllVideoDescriptions.txt", "*.txt")[0]
    said: dict[str, list[str]] = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, sentence = line.strip().partition(" ")
        if sentence and not line.startswith("#"):
            said[name].append(sentence)
    return caption_items(clips(folder, said), said, VIDEO_PROMPT)


TASK = Task(
    name="msvd-captions",
    version="3",
    load=load,
    parse=parse,
    score=score,
    aggregate=aggregate,
    units=weighed,
    is_share=False,
)

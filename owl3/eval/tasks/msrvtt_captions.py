"""msrvtt-captions: one sentence about a web clip (Xu et al. 2016).

Split: 1k-A test (one reference each) or `test_videodatainfo.json` (twenty). 8 frames.
Metric: CIDEr-D (and BLEU-4, ROUGE-L). Prompt: ours, see `_captions.py`.

    key ret0, vid_key msr9770, video_id video9770, sentence "a person is connecting something to system"
"""

from collections import defaultdict
from pathlib import Path

from owl3.eval.items import Item
from owl3.eval.metrics.captions import aggregate, weighed
from owl3.eval.task import Task
from owl3.eval.tasks._captions import VIDEO_PROMPT, caption_items, clips, parse, score
from owl3.eval.tasks._files import find_files, need, read_json, read_table


def load(folder: Path) -> list[Item]:
    """MSR-VTT's json of sentences, or the 1k-A test csv."""
    path = find_files(folder, "test_videodatainfo.json", "*.csv")[0]
    rows = read_json(path)["sentences"] if path.suffix == ".json" else read_table(path, ";")
    said: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        need(row, ("video_id", "sentence" if "sentence" in row else "caption"), str(path))
        said[row["video_id"]].append(row.get("sentence") or row["caption"])
    return caption_items(clips(folder, said), said, VIDEO_PROMPT)


TASK = Task(
    name="msrvtt-captions",
    version="3",
    load=load,
    parse=parse,
    score=score,
    aggregate=aggregate,
    units=weighed,
    is_share=False,
)

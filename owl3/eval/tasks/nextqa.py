"""nextqa: multiple choice about causes, times and things in home videos (Xiao et al. 2021).

Split: MC test in the paper; val reads the same. 8 frames. Metric: accuracy, also causal, temporal, descriptive.
Prompt: `<video> Question: {question} Options: {A. …} Answer with the option’s letter from the given choices directly.`

    video 4010069381, question "how do the two man play the instrument", answer 0, qid 6, type CH, a0 "roll the handle"
"""

from pathlib import Path

from owl3.eval.items import Item, Medium
from owl3.eval.metrics.choice import option_lines
from owl3.eval.metrics.nextqa import aggregate
from owl3.eval.task import Task
from owl3.eval.tasks._choice import BLOCK, answer_index, make_item, parse
from owl3.eval.tasks._files import VIDEO_SUFFIXES, find_files, media_path, need, read_json, read_table

NUM_FRAMES = 8


def load(folder: Path) -> list[Item]:
    """`test.csv` or `val.csv`; `map_vid_vidorID.json` gives the folder of a video where there are folders."""
    path = find_files(folder, "MC/test*.csv", "test.csv", "val.csv")[0]
    places = folder / "map_vid_vidorID.json"
    place = read_json(places) if places.is_file() else {}
    items = []
    for row in read_table(path, ","):
        where = f"{path}: {row.get('video')}_{row.get('qid')}"
        need(row, ("video", "qid", "question", "type", "a0", "a4"), where)
        options = [row[f"a{i}"] for i in range(5)]
        answer = answer_index(int(row["answer"]), options, where)
        file = media_path(folder, f"{place.get(row['video'], row['video'])}", "NExTVideo", suffixes=VIDEO_SUFFIXES)
        text = "\n" + BLOCK.format(question=row["question"], options=option_lines(options))
        prompt = (Medium(file, num_frames=NUM_FRAMES), text)
        name = f"{row['video']}_{row['qid']}"
        items.append(make_item(name, prompt, options, answer, group=row["video"], category=row["type"]))
    return items


TASK = Task(
    name="nextqa",
    version="3",
    load=load,
    parse=parse,
    letters=True,
    aggregate=aggregate,
    paper={"7B-240728": 0.786, "7B-241101": 0.823, "1B": 0.653, "2B": 0.745},
)

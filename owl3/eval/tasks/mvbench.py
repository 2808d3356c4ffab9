"""mvbench: 20 tasks of temporal understanding on clips of many data sets (Li et al. 2023).

Split: all, 200 questions per task. 16 frames. Metric: mean over the tasks, and accuracy of each. Prompt: `<video>
Question: {question} Options: {A. …} Answer with the option’s letter from the given choices directly.`

    {"video": "sta/sta_video/RPY8D.mp4", "question": "During which part of the video …?", "candidates": […],
     "answer": "Throughout the entire video.", "start": 0.0, "end": 7.2}
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from owl3.eval.items import Item, Medium
from owl3.eval.metrics.choice import mean_over_categories, option_lines
from owl3.eval.task import Task
from owl3.eval.tasks._choice import LETTER_PLEASE, answer_index, make_item, parse
from owl3.eval.tasks._files import VIDEO_SUFFIXES, find_files, media_path, need, read_json

NUM_FRAMES = 16
FOLDERS = {
    "action_sequence": "star/Charades_v1_480",
    "action_prediction": "star/Charades_v1_480",
    "action_antonym": "ssv2_video",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "unexpected_action": "FunQA_test/test",
    "object_existence": "clevrer/video_validation",
    "object_interaction": "star/Charades_v1_480",
    "object_shuffle": "perception/videos",
    "moving_direction": "clevrer/video_validation",
    "action_localization": "sta/sta_video",
    "scene_transition": "scene_qa/video",
    "action_count": "perception/videos",
    "moving_count": "clevrer/video_validation",
    "moving_attribute": "clevrer/video_validation",
    "state_change": "perception/videos",
    "fine_grained_pose": "nturgbd",
    "character_order": "perception/videos",
    "egocentric_navigation": "vlnqa",
    "episodic_reasoning": "tvqa/frames_fps3_hq",
    "counterfactual_inference": "clevrer/video_validation",
}
"""Where the published archives put a task's clips, below `video/`; its json names them by their file names alone."""
FRAMES_PER_S = 3.0  # TVQA comes as folders of pictures
PROMPT = "\nQuestion: {question}\nOptions:\n{options}\n" + LETTER_PLEASE


def load(folder: Path) -> list[Item]:
    """`json/TASK.json`, one file per task; `start` and `end` bound the part of the video that is asked about."""
    items = []
    for path in find_files(folder, "json/*.json"):
        for number, row in enumerate(read_json(path)):
            where = f"{path}: question {number}"
            need(row, ("video", "question", "candidates", "answer"), where)
            clip = _clip(folder, path.stem, row)
            options = row["candidates"]
            answer = answer_index(row["answer"], options, where)
            text = PROMPT.format(question=row["question"], options=option_lines(options))
            name = f"{path.stem}-{number}"
            items.append(make_item(name, (clip, text), options, answer, group=row["video"], category=path.stem))
    return items


def _clip(folder: Path, task: str, row: dict[str, Any]) -> Medium:
    below = [f"{place}/{FOLDERS[task]}" for place in ("video", "videos") if task in FOLDERS]
    file = media_path(folder, row["video"], *below, "video", "videos", suffixes=VIDEO_SUFFIXES)
    clip = Medium(file, None, NUM_FRAMES, float(row.get("start") or 0), row.get("end"))
    if task != "episodic_reasoning":
        return clip
    frames = [place for place in (folder / below[0] / row["video"], folder / "video" / row["video"]) if place.is_dir()]
    return replace(clip, path=frames[0], frames_per_s=FRAMES_PER_S) if frames else clip


TASK = Task(
    name="mvbench",
    version="3",
    load=load,
    parse=parse,
    letters=True,
    aggregate=mean_over_categories,
    paper={"7B-240728": 0.545, "7B-241101": 0.595, "1B": 0.471, "2B": 0.518},
)

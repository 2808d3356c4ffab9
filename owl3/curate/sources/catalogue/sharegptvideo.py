"""ShareGPTVideo: 900 k detailed video captions by GPT-4V, on pre-cut frames.

`video_instruction/train/pretrain/video_caption_pretrain.jsonl`; `video` names a folder of frames (c01_0000.jpeg …) in
`train_300k` or `train_600k`, or a clip ID.mp4:

    {"id": "…", "video": "zzzEZHRkyFM-Scene-003", "conversations": [
        {"from": "human", "value": "<video>\\nWrite a detailed description of this video …"},
        {"from": "gpt", "value": "The video begins with …"}]}
"""

from owl3.curate.sources.corpus import Corpus

CORPUS = Corpus(
    name="sharegptvideo",
    title="ShareGPTVideo captions",
    media="video",
    home="https://huggingface.co/datasets/ShareGPTVideo/train_video_and_instruction",
    metadata=(
        "video_caption_pretrain.jsonl from the home page; clips served as ID.mp4 under base_url. Folders of frames, "
        "and questions: flows/recipes/sharegptvideo-frames.yaml"
    ),
    metadata_licence="Apache-2.0",
    media_licence="unknown",
    citation="Zhang et al., Direct Preference Optimization of Video LMMs … (arXiv:2404.01258), 2024",
    source={
        "language": "en",
        "columns": {"url": "video", "caption": "conversations", "extra": ["id"]},
        "url_template": "{base_url}{name}.mp4",
    },
    curate={"video": {"min_frames": 8}},
    filters_from="8 frames: what a video sample needs (paper, section 4)",
    hazards=(
        "some captions name folders that are in neither archive (LLaVA-Hound-DPO issue 3): counted as not_found",
        "captions are of ten frames, not of the clip: what happens between them is guessed",
    ),
    checked=(
        "id, licence and the folders train_300k and train_600k: the hub card; the file's path: LLaVA-Hound's "
        "scripts; no row seen"
    ),
)

"""MSR-VTT: 10 k clips of 10-30 s, twenty sentences each.

The full release is one json object; its sentences lie under "sentences":

    {"caption": "a cartoon animals runs through an ice cave in a video game", "video_id": "video2960", "sen_id": 0}

The 1k-A test table has semicolons:

    key;vid_key;video_id;sentence
    ret258;msr7768;video7768;a 3d animation of a cabinet with plates
"""

from owl3.curate.sources.corpus import Corpus

CORPUS = Corpus(
    name="msrvtt",
    title="MSR-VTT",
    media="video",
    home="https://ms-multimedia-challenge.com/2017/dataset",
    metadata="train_val_videodatainfo.json (rows_at: sentences), or the 1k-A csv (delimiter: ';', rows_at: null)",
    metadata_licence="research use only (Microsoft)",
    media_licence="unknown",
    citation="Xu et al., MSR-VTT: A Large Video Description Dataset for Bridging Video and Language, 2016",
    source={
        "language": "en",
        "rows_at": "sentences",
        "columns": {"url": "video_id", "caption": "caption|sentence"},
        "url_template": "{base_url}{name}.mp4",
    },
    curate={"video": {"min_frames": 8}, "dedup": {"exact": "media_and_caption"}},
    filters_from="8 frames: what a video sample needs",
    hazards=(
        "the 1k-A test clips are an evaluation set: leave them out of training",
        "captions repeat word by word between clips",
        "the official links are dead (CLIP4Clip issue 29): mirrors differ",
    ),
    checked="the 1k-A table: 300 real rows; the json: from its description, no file seen",
)

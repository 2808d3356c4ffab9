"""VATEX, English captions: ten sentences per ten-second clip of a YouTube video.

{"videoID": "Ptf_2VRj-V0_000122_000132", "enCap": ["A guy is …", …], "chCap": ["一个男人…", …]}
"""

from owl3.curate.sources.corpus import Corpus

CORPUS = Corpus(
    name="vatex-en",
    title="VATEX, English",
    media="video",
    home="https://eric-xw.github.io/vatex-website/",
    metadata="vatex_training_v1.0.json, from the home page; clips served as VIDEOID.mp4 under base_url",
    metadata_licence="CC-BY-4.0",
    media_licence="unknown",
    citation="Wang et al., VATEX: A Large-Scale, High-Quality Multilingual Dataset … (arXiv:1904.03493), 2019",
    source={
        "language": "en",
        "columns": {"url": "videoID", "caption": "enCap"},
        "url_template": "{base_url}{name}.mp4",
    },
    curate={"video": {"min_frames": 8, "max_duration_s": 15}, "dedup": {"exact": "media_and_caption"}},
    filters_from="15 s: clips are ten seconds long; longer ones were cut wrongly",
    hazards=(
        "many source videos are gone from YouTube; links to packed clips are dead (Flash-VStream issue 26)",
        "clips of one video are near duplicates of each other",
    ),
    checked="size and languages: the home page, which still serves the json; its keys: from memory, no file seen",
)

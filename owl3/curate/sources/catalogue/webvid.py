"""Tables in WebVid's layout: stock clips with a title and a direct URL.

{"videoid": 1007323537, "name": "Camera moves along gold picture frames on luxury red upholstery background. …",
 "page_idx": 83848, "page_dir": "083801_083850", "duration": "PT00H00M07S",
 "contentUrl": "https://ak.picdn.net/shutterstock/videos/1007323537/preview/stock-footage-….mp4"}
"""

from owl3.curate.sources.corpus import Corpus

CORPUS = Corpus(
    name="webvid",
    title="WebVid-style tables (url, title)",
    media="video",
    home="https://github.com/m-bain/webvid",
    metadata="your own table: WebVid itself was withdrawn in 2024",
    metadata_licence="unknown",
    media_licence="unknown",
    citation="Bain et al., Frozen in Time: A Joint Video and Image Encoder for End-to-End Retrieval, 2021",
    source={
        "language": "en",
        "columns": {"url": "contentUrl|url", "caption": "name|title", "extra": ["videoid"]},
    },
    curate={"video": {"min_frames": 8, "max_duration_s": 120}},
    filters_from="8 frames: what a video sample needs; 120 s: the longest stock clips",
    hazards=(
        "WebVid was withdrawn after its agency objected: check that you may use what you fetch",
        "previews carry a large watermark",
        "page URLs (youtube.com/watch) are not media: they end as not_a_video",
    ),
    checked="columns: 40 real rows; watermarks: the repository's README; the withdrawal: not found in writing",
)

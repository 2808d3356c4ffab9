"""A folder of clips and a table that names them.

{"file": "boat.mp4", "caption": "a boat on a lake", "start": 0.0, "end": 6.0}
"""

from owl3.curate.sources.corpus import Corpus

CORPUS = Corpus(
    name="local-clips",
    title="A folder of clips",
    media="video",
    home="",
    metadata="your own table with columns file and caption (start and end in seconds if clips are to be cut)",
    metadata_licence="unknown",
    media_licence="unknown",
    citation="",
    source={"columns": {"url": "file", "caption": "caption"}},
    curate={"video": {"min_frames": 8}},
    filters_from="8 frames: what a video sample needs",
    hazards=("files that are pictures under a clip's name end as not_a_video",),
    checked="nothing to check: the table is yours",
)

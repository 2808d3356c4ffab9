"""MSVD: 1,970 YouTube clips, about forty sentences each.

`AllVideoDescriptions.txt`, clip id and sentence:

    mv89psg6zh4_33_46 a bird in the sink keeps getting under the running water from a faucet
"""

from owl3.curate.sources.corpus import Corpus

CORPUS = Corpus(
    name="msvd",
    title="Microsoft Research Video Description Corpus (MSVD)",
    media="video",
    home="https://www.cs.utexas.edu/users/ml/clamp/videoDescription/",
    metadata="AllVideoDescriptions.txt and YouTubeClips.tar, from the home page",
    metadata_licence="unknown",
    media_licence="unknown",
    citation="Chen and Dolan, Collecting Highly Parallel Data for Paraphrase Evaluation, 2011",
    source={"layout": "msvd", "language": "en"},
    curate={"video": {"min_frames": 8}, "dedup": {"exact": "media_and_caption"}},
    filters_from="8 frames: what a video sample needs",
    hazards=("the usual split is 1200 / 100 / 670: the last 670 are a test set", "clips are .avi with old codecs"),
    checked="form of the text file: from its description, no file seen; official links are dead (mirrors differ)",
)

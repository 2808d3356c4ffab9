"""VATEX, Chinese captions: ten sentences per ten-second clip of a YouTube video.

{"videoID": "Ptf_2VRj-V0_000122_000132", "enCap": ["A guy is …", …], "chCap": ["一个男人…", …]}
"""

from owl3.curate.sources.catalogue import vatex_en

CORPUS = vatex_en.CORPUS.variant(
    name="vatex-zh", title="VATEX, Chinese", source={"language": "zh", "columns": {"caption": "chCap"}}
)

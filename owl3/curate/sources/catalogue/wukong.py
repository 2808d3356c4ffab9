"""Wukong: 100 million Chinese pairs, 256 csv files.

url,caption
https://gimg2.baidu.com/image_search/src=…,四驱越野车
"""

from owl3.curate.sources.corpus import Corpus

CORPUS = Corpus(
    name="wukong",
    title="Wukong 100M",
    media="image",
    home="https://wukong-dataset.github.io/wukong-dataset/",
    metadata="wukong_release/wukong_100m_*.csv, by hand from the home page",
    metadata_licence="CC-BY-NC-SA-4.0",
    media_licence="unknown",
    citation="Gu et al., Wukong: A 100 Million Large-scale Chinese Cross-modal Pre-training Benchmark, 2022",
    source={"language": "zh", "columns": {"url": "url", "caption": "caption"}},
    curate={"rows": {"caption": {"min_chars": 3}}, "image": {"min_side_px": 200, "max_aspect_ratio": 3.0}},
    filters_from="side 200 and aspect 3: how Wukong was made (paper, section 3.1)",
    hazards=(
        "most URLs point to a search engine's cache, which answers with HTML or a placeholder when asked too fast",
        "the licence of the metadata excludes commercial use",
    ),
    checked=(
        "how it was made: the paper (arXiv:2202.06767); 256 files by name: MindSpore's guide; columns and licence: "
        "from memory of the home page, no row seen"
    ),
)

"""Conceptual 12M: like CC3M, less cleaned; names are replaced by <PERSON>.

Tab-separated, URL first, no header:

    https://…/picture.jpg\tMetal Design Within Reach Ivory Slipper Chairs - a Pair For Sale - Image 7 of 10
"""

from owl3.curate.sources.catalogue import cc3m

CORPUS = cc3m.CORPUS.variant(
    name="cc12m",
    title="Conceptual 12M",
    home="https://github.com/google-research-datasets/conceptual-12m",
    metadata="cc12m.tsv, by hand from the home page",
    citation="Changpinyo et al., Conceptual 12M: Pushing Web-Scale Image-Text Pre-Training, 2021",
    source={"columns": {"url": "0", "caption": "1"}},
    filters_from="side and aspect: DataComp's basic filter",
    hazards=(
        "CC3M has the two columns the other way round",
        "62 % of the URLs were left in October 2025 (conceptual-12m issue 9)",
        "<PERSON> stands for every name: train on it or replace it, but know it",
    ),
    checked="column order: the release's column list; link rot: conceptual-12m issue 9; no row of the release was seen",
)

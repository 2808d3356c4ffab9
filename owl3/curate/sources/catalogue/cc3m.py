"""Conceptual Captions 3M: alt texts with names replaced by hypernyms ("person", "city").

Tab-separated, caption first, no header:

    group of deer in a field .\thttps://ssl.c.photoshelter.com/img-get2/…/huber-woods-deer001.jpg
"""

from owl3.curate.sources.corpus import Corpus

CORPUS = Corpus(
    name="cc3m",
    title="Conceptual Captions 3M",
    media="image",
    home="https://ai.google.com/research/ConceptualCaptions",
    metadata="Train_GCC-training.tsv, by hand from the home page",
    metadata_licence="free use with acknowledgement (Google)",
    media_licence="unknown",
    citation="Sharma et al., Conceptual Captions: A Cleaned, Hypernymed, Image Alt-text Dataset, 2018",
    source={"header": False, "language": "en", "columns": {"caption": "0", "url": "1"}},
    curate={"image": {"min_side_px": 200, "max_aspect_ratio": 3.0}},
    filters_from="side and aspect: DataComp's basic filter; captions were cleaned when the corpus was made",
    hazards=(
        "CC12M has the two columns the other way round",
        "many of the training URLs are gone",
        "captions are tokenised ('field .') and say 'person' for every name",
    ),
    checked="column order and form: 800 rows of the validation file; licence: Google's notice",
)

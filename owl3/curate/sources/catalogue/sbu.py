"""SBU Captioned Photos: one million Flickr photos with their owners' descriptions.

One json object of two columns:

    {"image_urls": ["http://static.flickr.com/2723/4385058960_b0f291553e.jpg", …],
     "captions": ["A wooden chair in the living room", …]}
"""

from owl3.curate.sources.corpus import Corpus

CORPUS = Corpus(
    name="sbu",
    title="SBU Captioned Photo Dataset",
    media="image",
    home="https://www.cs.rice.edu/~vo9/sbucaptions/",
    metadata=(
        "sbu-captions-all.json, from the home page; the hub has vicenteor/sbu_captions (image_url, user_id, caption)"
    ),
    metadata_licence="unknown",
    media_licence="unknown",
    citation="Ordonez et al., Im2Text: Describing Images Using 1 Million Captioned Photographs, 2011",
    source={"language": "en", "columns": {"url": "image_urls|image_url", "caption": "captions|caption"}},
    curate={"image": {"min_side_px": 200, "max_aspect_ratio": 3.0}},
    filters_from="side and aspect: DataComp's basic filter",
    hazards=(
        "Flickr answers for removed photos with a grey 'no longer available' picture: one sha256, many URLs",
        "owners' licences were not recorded",
    ),
    checked=(
        "home page, unknown licence and columns of the hub's version: its card; columns of the json: "
        "img2dataset's guide"
    ),
)

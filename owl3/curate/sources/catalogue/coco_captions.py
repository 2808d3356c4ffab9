"""COCO captions: five sentences per photo, written for the purpose; local files. Beside them the instances json of the
same photos: sizes, categories and boxes of objects, which a recipe's rules can use.

{"images": [{"id": 397133, "file_name": "000000397133.jpg", "license": 4, "width": 640, "height": 427,
             "flickr_url": "http://farm7.staticflickr.com/6116/6255196340_da26cf2c9e_z.jpg", …}],
 "annotations": [{"image_id": 397133, "id": 370509, "caption": "A man is in a kitchen making pizzas."}]}
"""

from owl3.curate.sources.corpus import Corpus

CORPUS = Corpus(
    name="coco-captions",
    title="COCO captions 2017",
    media="image",
    home="https://cocodataset.org",
    metadata="annotations/{captions,instances}_train2017.json and the folder of photos, from the home page",
    metadata_licence="CC-BY-4.0",
    media_licence="per photo (Flickr licence in the json)",
    citation="Lin et al., Microsoft COCO: Common Objects in Context, 2014; Chen et al., Microsoft COCO Captions, 2015",
    source={"layout": "coco", "language": "en", "captions": "first"},
    curate={"dedup": {"exact": "media_and_caption", "near_caption": "same"}},
    filters_from="none: photos were chosen and captions written by people",
    hazards=(
        "VQAv2, OK-VQA, POPE, RefCOCO and GQA are made of the same photos: decontaminate",
        "licences differ per photo and many exclude commercial use: see the licence column",
        "no boxes of faces: blur_categories: [person] blurs whole people by their boxes; faces: finds them by a model",
    ),
    checked="layout and licence ids: files of the 2017 release",
)

"""DataComp-1B: 1.4 billion pairs chosen from CommonPool by CLIP score and nearness to ImageNet.

Columns of the release:

    uid, url, text, original_width, original_height, clip_b32_similarity_score, clip_l14_similarity_score,
    face_bboxes, sha256

    {"uid": "…32 hex digits…", "url": "https://…", "text": "…", "clip_l14_similarity_score": 0.27,
     "face_bboxes": [[0.41, 0.12, 0.56, 0.33]], "sha256": "…64 hex digits…"}
"""

from owl3.curate.sources.corpus import Corpus

CORPUS = Corpus(
    name="datacomp-1b",
    title="DataComp-1B",
    media="image",
    home="https://www.datacomp.ai",
    metadata="hub: mlfoundations/datacomp_1b",
    metadata_licence="CC-BY-4.0",
    media_licence="unknown",
    citation="Gadre et al., DataComp: In search of the next generation of multimodal datasets, 2023",
    source={
        "hub": "mlfoundations/datacomp_1b",
        "columns": {
            "url": "url",
            "caption": "text",
            "sha256": "sha256",
            "boxes": "face_bboxes",
            "extra": ["uid", "clip_b32_similarity_score", "clip_l14_similarity_score"],
        },
    },
    filters_from="none: the corpus is filtered already (CLIP L/14 score and ImageNet clusters)",
    hazards=(
        "14 % of the pictures no longer have the recorded sha256 (datacomp issue 67): dropped as hash_mismatch",
        "faces are blurred by the recorded boxes, as the corpus's terms ask",
        "captions repeat: shops use one text for thousands of pictures",
    ),
    checked=(
        "id, open access and CC-BY-4.0: the hub card, 2026; column names: DataComp's own code; sha256 drift: "
        "datacomp issue 67"
    ),
)

"""LLaVA-ReCap-558K: the pictures of LLaVA-Pretrain with long captions by LLaVA-NeXT-34B; parent of the paper's
interleaved and selective captions.

The hub's parquet holds the pictures themselves (`image`), so unpack them once and serve the folder; rows:

    {"id": "004539375", "image": "00453/004539375.jpg", "conversations": [
        {"from": "human", "value": "<image>\\nPlease generate detailed descriptions of the given image."},
        {"from": "gpt", "value": "The image shows a bed with a memory foam mattress topper …"}]}
"""

from owl3.curate.sources.catalogue import llava_pretrain

CORPUS = llava_pretrain.CORPUS.variant(
    name="llava-recap-558k",
    title="LLaVA-ReCap-558K",
    home="https://huggingface.co/datasets/lmms-lab/LLaVA-ReCap-558K",
    metadata="hub: lmms-lab/LLaVA-ReCap-558K (pictures inside), or its json beside LLaVA-Pretrain's images",
    metadata_licence="unknown",
    citation="Li et al., LLaVA-NeXT: What Else Influences Visual Instruction Tuning Beyond Data?, 2024",
    filters_from="none",
    hazards=(
        "captions are a model's: long, fluent, and wrong in details",
        "the same pictures as llava-pretrain: do not mix both without deduplication",
    ),
    checked="layout: the sister sets' hub cards (LLaVA-NeXT-Data); its own licence was not found",
)

"""LLaVA's pre-training set: 558 k pictures of LAION, CC3M and SBU with BLIP captions; local files.

{"id": "000018108", "image": "00001/000018108.jpg", "conversations": [
    {"from": "human", "value": "<image>\\nGive a brief description of the image."},
    {"from": "gpt", "value": "small boy laying on his back on a mattress next to a pool royalty"}]}
"""

from owl3.curate.sources.corpus import Corpus

CORPUS = Corpus(
    name="llava-pretrain",
    title="LLaVA-Pretrain (BLIP-LAION-CC-SBU 558k)",
    media="image",
    home="https://huggingface.co/datasets/liuhaotian/LLaVA-Pretrain",
    metadata="blip_laion_cc_sbu_558k.json and images.zip, from the home page",
    metadata_licence="other: as CC-3M and BLIP ask (hub card)",
    media_licence="unknown",
    citation="Liu et al., Visual Instruction Tuning, 2023",
    source={"layout": "llava", "language": "en"},
    filters_from="none: the set was chosen by concept frequency",
    hazards=(
        "captions come from BLIP and invent details ('royalty', 'illustration')",
        "the pictures' original URLs are not in the set: provenance ends at the folder",
    ),
    checked="file names and licence `other`: the hub page, 2026; layout: 2,183 real rows",
)

"""Conversations in LLaVA's layout and those that grew from it.

LLaVA (LLaVA-Pretrain, row 000018108 of blip_laion_cc_sbu_558k.json):

    {"id": "000018108", "image": "00001/000018108.jpg", "conversations": [
      {"from": "human", "value": "<image>\\nGive a brief description of the image."},
      {"from": "gpt", "value": "small boy laying on his back on a mattress next to a pool royalty"}]}

ALLaVA (its README's first example, shortened): more fields, which we keep out.

    {"id": "allava_laion_cap_100277305", "image": "allava_laion/images/100277305.jpeg", "conversations": [
      {"from": "human", "value": "<image>\\nPlease depict the image in words."},
      {"from": "gpt", "value": "The image displays a silver ring with a design that resembles a stylized leaf. …"}],
     "original_caption": "190952cz Pandora Tropical Palm Leaf Ring", "url": "https://theartofpandora.com/…"}

LLaVA-NeXT-Interleave (M4-Instruct), MMDU: `image` is a list. MMDU's own file says user and assistant, and spells the
placeholder `<ImageHere>`; a row of MMDU-45k as converted to LLaVA's words, shortened:

    {"id": 64, "image": ["mmdu-45k_pics/Bk1Gh1Y1S2EChGZzde_1_1.jpg", "mmdu-45k_pics/Bk1GhVk1RhkB7W80RCTo_1.jpg"],
     "conversations": [{"from": "human", "value": "Image1: <image>\\nImage2: <image>\\n### Questions:\\nQ: …"}, …]}

ShareGPTVideo: `video` names a folder of frames, in the captions (video_caption_pretrain.jsonl) and in the questions
(video_240k_caption_15k.jsonl: 240,000 of them, then captions); no row could be seen, the fields are those that public
readers use. Rows without media are text.
"""

from typing import Any

from owl3.build.importers.record import Record, conversation, dict_of, list_of, media_names, role_of, text_of
from owl3.samples import Role


def llava(row: dict[str, Any]) -> Record:
    """`conversations` of {from, value}; media in `image`, `images` or `video`."""
    said: list[tuple[Role, str]] = []
    for entry in list_of(row, "conversations"):
        turn = dict_of(entry, "conversations")
        said.append((role_of(turn.get("from", turn.get("role"))), text_of(turn, "value")))
    media = media_names(row.get("image") or row.get("images")) + media_names(row.get("video"), "video")
    return conversation(said, media, row_meta(row))


def mantis(row: dict[str, Any]) -> Record:
    """Mantis' own layout: `conversation` of {role, content}, media in `images` or `video`.

    Mantis-Instruct, row sharegpt4v-pt_256 of data/examples/chat/train.json, shortened after its second turn:

        {"id": "sharegpt4v-pt_256", "images": ["train_images/…/001593417.jpg", "train_images/…/001794911.jpg"],
         "conversation": [
           {"role": "user", "content": "<image><image>Which image might suggest a place suitable for a late-night …"},
           {"role": "assistant", "content": "Image 1 might suggest a place suitable for a late-night study …"}]}
    """
    said: list[tuple[Role, str]] = []
    for entry in list_of(row, "conversation"):
        turn = dict_of(entry, "conversation")
        said.append((role_of(turn.get("role")), text_of(turn, "content")))
    media = media_names(row.get("images") or row.get("image")) + media_names(row.get("video"), "video")
    return conversation(said, media, row_meta(row))


def row_meta(row: dict[str, Any]) -> dict[str, Any]:
    """What a row calls itself."""
    found = row.get("id", row.get("sample_id"))
    return {"row_id": str(found)} if found is not None else {}

"""`messages`, as ms-swift and LLaMA-Factory write them, and OpenAI's content lists.

LLaMA-Factory, first row of data/mllm_demo.json, shortened after its second turn:

    {"messages": [{"content": "<image>Who are they?", "role": "user"},
                  {"content": "They're Kane and Gretzka from Bayern Munich.", "role": "assistant"}],
     "images": ["mllm_demo_data/1.jpg"]}

Content lists (LLaMA-Factory, data/v1_multimodal_demo.jsonl): `"content": [{"type": "image_url", "value":
"data/mllm_demo_data/1.jpg"}, {"type": "text", "value": "Who are they?"}]`; media stand where their entries do.
"""

from typing import Any

from owl3.build.drafts import Refused
from owl3.build.importers.chat import row_meta
from owl3.build.importers.record import MediaName, Record, conversation, dict_of, list_of, media_names, role_of
from owl3.samples import Role


def messages(row: dict[str, Any]) -> Record:
    """See the head of this file."""
    said: list[tuple[Role, str]] = []
    inline: list[MediaName] = []
    for entry in list_of(row, "messages"):
        message = dict_of(entry, "messages")
        said.append((role_of(message.get("role")), _content(message.get("content"), inline)))
    apart = media_names(row.get("images")) + media_names(row.get("videos"), "video")
    if inline and apart:
        raise Refused("media_mismatch", "media stand both inside the messages and beside them")
    return conversation(said, _in_order(said, inline or apart), row_meta(row))


def _content(content: Any, inline: list[MediaName]) -> str:
    """A message as text with placeholders; media of content lists are collected in `inline`."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Refused("wrong_type", f"content: expected text or a list, found {type(content).__name__}")
    text = ""
    for entry in content:
        part = dict_of(entry, "content")
        kind = str(part.get("type", ""))
        if kind == "text":
            text += str(part.get("text") or part.get("value") or "")
            continue
        if kind.removesuffix("_url") not in ("image", "video"):
            raise Refused("wrong_type", f"content of type {kind!r}")
        name = part.get(kind) or part.get("value") or part.get("url")
        name = name.get("url") if isinstance(name, dict) else name
        medium = media_names(name, "video" if kind.startswith("video") else "image")
        if len(medium) != 1:
            raise Refused("media_mismatch", f"a {kind} entry names {len(medium)} media")
        inline += medium
        text += f"<{medium[0].kind}>"
    return text


def _in_order(said: list[tuple[Role, str]], media: list[MediaName]) -> list[MediaName]:
    """Images and videos are listed apart; put them in the order of their placeholders."""
    by_kind = {kind: [medium for medium in media if medium.kind == kind] for kind in ("image", "video")}
    if not (by_kind["image"] and by_kind["video"]):
        return media
    text = "".join(text for _, text in said).replace("<|image|>", "<image>").replace("<|video|>", "<video>")
    order = [text[i : i + 7] for i in range(len(text)) if text.startswith(("<image>", "<video>"), i)]
    wanted = ["video" if mark == "<video>" else "image" for mark in order]
    if any(wanted.count(kind) != len(found) for kind, found in by_kind.items()):
        raise Refused("media_mismatch", f"{len(wanted)} placeholders, {len(media)} media, by kind")
    return [by_kind[kind].pop(0) for kind in wanted]

"""Question-and-answer layouts without a conversation: The Cauldron and Video-Instruct-100K."""

from typing import Any

from owl3.build.importers.chat import row_meta
from owl3.build.importers.record import MediaName, Record, conversation, dict_of, list_of, media_names, text_of
from owl3.samples import Role

_NOISE = ("\nQA_GT_caption_based_noisy",)
"""Left in answers by the model that wrote Video-Instruct-100K (mbzuai-oryx/Video-ChatGPT issue 69: to be removed)."""


def cauldron(row: dict[str, Any]) -> Record:
    """The Cauldron: pictures in the row, and questions about all of them; no placeholders.

    First row of its AI2D part:

        {"images": [<PNG, 299 x 227>], "texts": [{"user": "Question: What do respiration and combustion give out\\n
          Choices:\\nA. Oxygen\\nB. Carbon dioxide\\nC. Nitrogen\\nD. Heat\\nAnswer with the letter.",
          "assistant": "Answer: B", "source": "AI2D"}]}
    """
    said: list[tuple[Role, str]] = []
    sources: list[str] = []
    for entry in list_of(row, "texts"):
        pair = dict_of(entry, "texts")
        said += [("user", text_of(pair, "user")), ("assistant", text_of(pair, "assistant"))]
        sources.append(str(pair.get("source") or ""))
    meta = {"source_set": sources[0]} if sources and sources[0] else {}
    return conversation(said, media_names(row.get("images")), row_meta(row) | meta)


def video_instruct(row: dict[str, Any]) -> Record:
    """Video-Instruct-100K: a question, an answer, and the clip's ActivityNet id.

    A row as issue 69 of mbzuai-oryx/Video-ChatGPT quotes it, shortened:

        {"q": "Can you briefly describe the content of the video for me?",
         "a": "Of course! The video features various shots of a city followed by a girl playing the violin. …",
         "video_id": "v_GqWH2IYPw6U"}
    """
    answer = text_of(row, "a")
    for noise in _NOISE:
        answer = answer.replace(noise, "")
    clip = MediaName(text_of(row, "video_id"), "video")
    return conversation([("user", text_of(row, "q")), ("assistant", answer)], [clip], {"row_id": clip.name})

"""What `owl3 lint` looks for, and how it says that it found it."""

from dataclasses import dataclass

RULES: dict[str, str] = {
    # files
    "manifest": "the folder has a manifest, and it matches its own digest",
    "manifest-file": "every file has the bytes that the manifest says",
    "counts": "the manifest's counts are those of the indexes",
    "tar": "a tar can be read to its end",
    "index": "a tar has a readable index",
    "index-row": "every sample in the tar has a row in the index",
    "lost": "every kept row of the index has a sample in the tar",
    "position": "samples stand in the order of the index",
    "decision": "a row is kept or dropped",
    "reason": "a dropped row has a reason of the closed list, a kept one none",
    # names
    "key": "a key holds no dots or separators",
    "duplicate": "a key stands once",
    "sample-id": "the id follows from what the sample is made of",
    "parents": "every parent is a kept sample, or a file named by its hash",
    "retracted": "no parent has been retracted",
    # the sample
    "json": "KEY.json is JSON of the sample type: exact fields, turns without gaps, media in reading order",
    "placeholder": "text holds no placeholder or special token",
    "text": "text is valid: no control characters, no empty segment, an answer to learn",
    "roles": "a conversation is user and assistant in turn, and ends with an answer",
    "media-count": "as many media as the text refers to",
    "media-order": "media are numbered 0, 1, 2 … in the order of the tar",
    "frame-time": "times of frames never fall",
    # media
    "decode": "a medium decodes",
    "extension": "a medium is what its extension says",
    "size": "width and height are as declared",
    "sha256": "bytes have the declared hash",
    "place": "bytes lie where the index says",
    # cost
    "cost": "tokens, images and tiles are as declared",
    "budget": "no sample is over the recipe's budget",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule at one place."""

    rule: str
    where: str
    what: str

    def __post_init__(self) -> None:
        assert self.rule in RULES, f"no rule {self.rule!r}"

    def to_json(self) -> dict[str, str]:
        """Plain data."""
        return {"rule": self.rule, "where": self.where, "what": self.what}

"""What a card is about, as a recipe says it."""

from __future__ import annotations

from pydantic import Field

from owl3.config import Config


class CardConfig(Config):
    """The `card:` section of a recipe.

    Attributes:
        name: Folder under datacards/ that holds facts.yaml.
        version: Semantic version; a released version is never rendered from other artifacts.
        shards: Names of the shard artifacts the card covers.
        samples: Names of the sample artifacts the card covers.
        thumbnail_px: Longer side of the pictures on card.html.
        blur_above: Safety score (column src_nsfw) from which a thumbnail is blurred.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    version: str = Field(default="1.0.0", pattern=r"^\d+\.\d+\.\d+(-[0-9a-z.]+)?$")
    shards: tuple[str, ...] = Field(min_length=1)
    samples: tuple[str, ...] = ()
    thumbnail_px: int = Field(default=144, ge=16, le=512)
    blur_above: float = Field(default=0.5, ge=0, le=1)

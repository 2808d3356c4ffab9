"""What people must write about a corpus, because no machine can know it.

A card is rendered from two sources: figures, computed from the ledger (`figures.py`), and facts, written by a person in
`datacards/NAME/facts.yaml`. Every fact says where it comes from, so that a reader can check it:

    purpose:
      text: Teach a small model to describe scenes of coloured shapes.
      source: the maintainers of this recipe

There is no optional prose here. "More information needed" is the sentence that makes datacards worthless, so a missing
or empty fact is an error that names the key; a fact that does not apply says so and why.
"""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from owl3.config import Config, load_yaml
from owl3.errors import ConfigError

# Phrases that look like a fact and are none.
EMPTY_PHRASES = (
    "more information needed",
    "tbd",
    "to be done",
    "todo",
    "n/a",
    "unknown",
    "fixme",
    "lorem ipsum",
)


def _says_something(text: str) -> str:
    stripped = text.strip()
    if not stripped:
        raise ValueError("is empty: write the fact, or why there is none")
    bare = re.sub(r"[\W_]+", " ", stripped.casefold()).strip()
    if any(bare == re.sub(r"[\W_]+", " ", phrase).strip() for phrase in EMPTY_PHRASES):
        raise ValueError(f"{stripped!r} is no fact: write what is known, or why it can not be known")
    return stripped


Text = Annotated[str, AfterValidator(_says_something)]


class Fact(Config):
    """One statement, and where a reader can check it (URL, paper, file, or who says so)."""

    text: Text
    source: Text


class Licence(Config):
    """Terms of the table of URLs and captions; the pictures behind the URLs belong to their authors.

    Attributes:
        id: As in the list of licences of Hugging Face cards ("cc-by-4.0", "apache-2.0", "other").
        spdx: SPDX licence expression; "NOASSERTION" or "LicenseRef-…" where SPDX has no identifier.
    """

    id: Text
    spdx: Text
    name: Text
    url: Text
    pictures: Fact
    source: Text


class Contact(Config):
    """Whom to write to, and where to ask for a picture to be taken out."""

    name: Text
    address: Text = Field(description="mail address or URL")
    takedown: Text = Field(description="how a person asks for removal")


class Provider(Config):
    """Who answers for a model trained on this corpus: part 1 of the European summary.

    `size` sets how many domain names the summary must list: the top 10 % for `large`, the top 5 % or 1,000 for `small`.
    """

    name: Text
    address: Text
    size: Literal["large", "small"]


class Citation(Config):
    """How to cite the corpus; `bibtex` may be a plain reference where no BibTeX is published."""

    bibtex: Text
    url: Text


class Period(Config):
    """From when to when the content was collected, both ends inclusive; `start` is null where nobody published it."""

    start: datetime.date | None
    end: datetime.date
    source: Text


class Facts(Config):
    """All that a person says about one corpus. Every field is required."""

    name: Text
    pretty_name: Text
    kind: Literal["public", "scraped", "licensed", "user", "synthetic"] = Field(
        description="where the content comes from, in the words of the European summary"
    )
    tasks: list[Text] = Field(min_length=1, description="Hugging Face task categories")
    summary: Fact
    purpose: Fact
    provenance: Fact
    collection: Fact
    collected: Period
    annotation: Fact = Field(description="who or what wrote the texts")
    licence: Licence
    has_personal_data: bool = Field(description="whether persons are shown, named or described, as far as is known")
    personal_data: Fact
    consent: Fact
    sensitive_content: Fact
    intended_uses: list[Fact] = Field(min_length=1)
    unsuitable_uses: list[Fact] = Field(min_length=1)
    biases: list[Fact] = Field(min_length=1)
    hazards: list[Fact] = Field(min_length=1)
    rights_measures: Fact = Field(description="how reservations of rights were looked for and honoured")
    illegal_content_measures: Fact
    maintenance: Fact
    released: datetime.date
    contact: Contact
    provider: Provider
    citation: Citation

    def statements(self) -> dict[str, Fact]:
        """Every fact by its key ("hazards.1" in lists), in the order of this file."""
        found: dict[str, Fact] = {}
        for key in type(self).model_fields:
            value = getattr(self, key)
            if isinstance(value, Fact):
                found[key] = value
            elif isinstance(value, list) and value and isinstance(value[0], Fact):
                found.update({f"{key}.{number}": fact for number, fact in enumerate(value, start=1)})
        found["licence.pictures"] = self.licence.pictures
        return found


def facts_path(datacards_dir: Path, name: str) -> Path:
    """Where people write about a corpus."""
    return datacards_dir / name / "facts.yaml"


def load_facts(datacards_dir: Path, name: str) -> Facts:
    """Read `datacards/NAME/facts.yaml`.

    Raises:
        ConfigError: when the file or one fact is missing; the message names the file and the key.
    """
    path = facts_path(datacards_dir, name)
    if not path.is_file():
        raise ConfigError(f"{path}: no facts for the card {name!r}; write them (datacards/README.md shows the keys)")
    facts = load_yaml(path, Facts)
    if facts.name != name:
        raise ConfigError(f"{path}: name {facts.name!r} must be the folder's name, {name!r}")
    return facts

"""The `build:` section of a recipe: one entry per sample set, told apart by `builder`.

build:
  - {name: pairs, builder: caption, shards: [photos], tokenizer: qwen2}
  - {name: together, builder: interleaved_caption, shards: [photos], tokenizer: qwen2, images: [3, 8], count: 500}
"""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, TypeAdapter, model_validator

from owl3.config import Config

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Language = Literal["en", "zh"]
Policy = Literal["random", "topic", "embedding"]
"""Which parents stand together: any; those of a caption topic; neighbours by an embedding file."""


class BuildBase(Config):
    """What every builder understands."""

    name: Name
    """The artifact: `samples/NAME`."""
    builder: str
    """What to build; tells the classes of this file apart."""
    shards: tuple[str, ...] = ()
    """Curated shard sets (`shards/NAME`) that pictures and clips are drawn from."""
    tokenizer: str
    """Costs are counted with `tokenizers/NAME`."""
    release: Literal["240728", "241014", "241101"] = "241101"
    """Whose chat template the costs are counted in."""
    tile_px: int = Field(default=378, ge=1)
    """Side of a tile when pictures are cut; decides how many tiles a picture becomes."""
    seed: int = Field(default=0, ge=0)
    count: int | Literal["all"] = "all"
    """Exactly this many kept samples, or as many as there are parents for."""
    store: Literal["bytes", "references"] = "bytes"
    """Copy media into the sample's tar, or point at their place in the parents' tars."""
    samples_per_shard: int = Field(default=1000, ge=1)
    languages: tuple[Language, ...] = Field(default=("en",), min_length=1)
    """Templates follow the caption's language when it is one of these, else they are in the first."""
    max_images: int = Field(default=400, ge=1)
    max_text_tokens: int = Field(default=32_768, ge=1)
    """Samples that cost more are dropped: Qwen2's positions end at 32,768 (facts/owl3.md §1.3)."""
    max_side_px: int | None = Field(default=None, ge=16)
    """Pictures with a longer side are made smaller and encoded again; null copies bytes as they are."""
    on_missing: Literal["drop", "shrink"] = "drop"
    """A medium that is gone or damaged: drop the sample, or go on without it while enough are left. Conversations are
    always dropped: their words speak of every picture."""
    max_drop_fraction: float = Field(default=0.5, ge=0, le=1)
    """A bad stream is an error, not a small artifact. Rows of another kind and repeated rows do not count."""

    @model_validator(mode="after")
    def _references_keep_bytes(self) -> Self:
        if self.store == "references" and self.max_side_px is not None:
            raise ValueError("store: references can't go with max_side_px: resized bytes lie in no parent shard")
        if isinstance(self.count, int) and self.count < 1:
            raise ValueError("count must be at least 1, or 'all'")
        return self


class Composed(BuildBase):
    """Samples that bring several pictures of the shard sets together."""

    images: tuple[int, int]
    """Fewest and most pictures of a sample; every number between is drawn equally often."""
    policy: Policy = "random"
    embeddings: str | None = None
    """For `policy: embedding`: a Parquet file (sample_id, embedding), relative to the workspace."""
    max_uses: int = Field(default=1, ge=1)
    """How often one picture may be used, over all samples of this set."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        low, high = self.images
        if not 1 <= low <= high:
            raise ValueError(f"images [{low}, {high}] is not a range from at least 1 upwards")
        if high > self.max_images:
            raise ValueError(f"images go up to {high}, but max_images is {self.max_images}")
        if (self.policy == "embedding") != (self.embeddings is not None):
            raise ValueError("policy: embedding and embeddings: FILE belong together")
        return self


class CaptionBuild(BuildBase):
    """One picture and its caption."""

    builder: Literal["caption"]
    prompt: bool = False
    """Ask for a description in words (template), instead of the bare picture."""


class InterleavedCaptionBuild(Composed):
    """K pictures with their captions in turn. The paper's preset is `images: [3, 6]` (facts/owl3.md §3.3)."""

    builder: Literal["interleaved_caption"]
    images: tuple[int, int] = (3, 8)
    layout: Literal["document", "turns", "list"] = "document"
    """One text to go on with; a turn per picture; or all pictures, then a numbered list of captions."""


class SelectiveCaptionBuild(Composed):
    """N pictures, and the caption of the one that is asked for. The paper uses 4 (facts/owl3.md §3.3)."""

    builder: Literal["selective_caption"]
    images: tuple[int, int] = (4, 4)


class LongImageBuild(Composed):
    """Tens to hundreds of pictures, and a question about the one that stands at a controlled depth."""

    builder: Literal["long_image"]
    images: tuple[int, int] = (10, 400)
    lengths: tuple[int, ...] = ()
    """Only these numbers of pictures, in turn; for length x depth grids. Empty: any in `images`."""
    depths: int = Field(default=10, ge=1)
    """The needle stands in each of this many equal parts of the sequence equally often."""
    task: Literal["caption", "find"] = "caption"
    """Ask for the caption of Image X, or for the X of a caption."""
    max_images: int = Field(default=1000, ge=1)

    @model_validator(mode="after")
    def _lengths_in_range(self) -> Self:
        low, high = self.images
        if any(not low <= length <= high for length in self.lengths):
            raise ValueError(f"lengths {list(self.lengths)} must lie in images [{low}, {high}]")
        return self


class DistractorBuild(Composed):
    """ "In Image X, …": a question about one picture, hidden among others (facts/owl3.md §4.3)."""

    builder: Literal["distractor"]
    samples: tuple[str, ...] = Field(min_length=1)
    """Built sample sets with questions about one picture. Without `shards` their pictures are the distractors."""
    policy: Policy = "random"
    """Which pictures hide the one that is asked for: any, or hard negatives of the question's topic, by words or by an
    embedding file. Hard ones take at most half of `max_uses`."""
    images: tuple[int, int] = (2, 8)
    max_uses: int = Field(default=1000, ge=1)


class Frames(Config):
    """Which moments of a clip are looked at."""

    policy: Literal["uniform", "fps", "scenes"] = "uniform"
    """Middles of `count` equal parts; `fps` per second; or the middles of the shots between cuts."""
    count: int = Field(default=8, ge=1)
    """Frames for `uniform`, and the most for the others. The paper trains with 8 (facts/owl3.md §3.3)."""
    fps: float = Field(default=1.0, gt=0)
    min: int = Field(default=1, ge=1)
    """A clip that gives fewer frames is dropped."""
    on_short: Literal["fewer", "repeat"] = "fewer"
    """A clip with fewer frames than asked: take what there is, or repeat the last one. Recorded in the sample."""
    scene_threshold: float = Field(default=0.12, gt=0, lt=1)
    """A cut is where two looks (a quarter second apart, 64 px grey) differ by this mean share of full scale.

    Measured on eight real clips: inside a shot at most 0.11, at cuts 0.15 to 0.22.
    """
    max_side_px: int = Field(default=512, ge=16)
    quality: int = Field(default=90, ge=1, le=100)


class VideoBuild(BuildBase):
    """Frames of a clip with its caption, or with questions about it."""

    builder: Literal["video"]
    files: tuple[str, ...] = ()
    """Question files (or captions as conversations) whose `video` is a URL of the shard sets or a path under
    `media_root`: a clip, or a folder of frames that somebody cut out already. Empty: captions of the shard sets."""
    format: str = "auto"
    media_root: str | tuple[str, ...] | None = None
    """Folder that relative paths are under; of several, the first that has it."""
    frames: Frames = Frames()
    source: str = ""
    """Of the questions; default: the file's name. Captions are of their clip's source."""
    licence: str = "unknown"

    @model_validator(mode="after")
    def _frames_are_new_bytes(self) -> Self:
        if self.store == "references":
            raise ValueError("store: references can't go with video: its frames lie in no parent shard")
        return self


class InstructBuild(BuildBase):
    """Conversations of an instruction file, with their pictures."""

    builder: Literal["instruct"]
    files: tuple[str, ...] = Field(min_length=1)
    """JSON or JSON-lines files (Parquet too), absolute or relative to the workspace."""
    format: str = "auto"
    """The layout of the files; `auto` looks at the first row. `owl3.build.importers.layouts.LAYOUTS` lists them."""
    media_root: str | tuple[str, ...] | None = None
    """Folder that relative picture paths are under; of several, the first that has it. URLs are looked up in
    `shards`."""
    source: str = ""
    """What to call the corpus in the ledger; default: the file's name."""
    licence: str = "unknown"

    @model_validator(mode="after")
    def _references_need_shards(self) -> Self:
        if self.store == "references" and self.media_root is not None:
            raise ValueError("store: references can't go with media_root: its files lie in no parent shard")
        return self


class TextBuild(BuildBase):
    """Conversations and documents without pictures."""

    builder: Literal["text"]
    files: tuple[str, ...] = Field(min_length=1)
    format: str = "auto"
    source: str = ""
    licence: str = "unknown"


class TextReadingBuild(BuildBase):
    """Pictures with text: transcribe it, or list key points (UReader's tasks, facts/owl3.md §3.3)."""

    builder: Literal["text_reading"]
    text_column: str = "src_ocr"
    """Column of the shard tables that holds what can be read in the picture: a text, the words in reading order
    (TextVQA's `ocr_tokens`), or records with the words (`text`, `utf8_string`, `transcription`, `word`), also as JSON.
    COYO-OCR as the catalogue lists it: `src_ocr_text`."""
    key_points_column: str | None = None
    """Column with key points, one per line; where it is filled both tasks are asked equally often."""
    min_characters: int = Field(default=1, ge=1)


BuildConfig = Annotated[
    CaptionBuild
    | InterleavedCaptionBuild
    | SelectiveCaptionBuild
    | LongImageBuild
    | DistractorBuild
    | VideoBuild
    | InstructBuild
    | TextBuild
    | TextReadingBuild,
    Field(discriminator="builder"),
]
BUILD_CONFIG: TypeAdapter[BuildConfig] = TypeAdapter(BuildConfig)


class TokenizerConfig(Config):
    """Where the tokenizer comes from: a folder, or training on the text of named sources."""

    name: Name = "tokenizer"
    folder: str | None = None
    """A folder with tokenizer.json, or vocab.json and merges.txt; absolute or relative to the workspace."""
    vocab_size: int = Field(default=2048, ge=320)
    """Of a trained one; the demo's scenes need a few hundred merges only."""
    shards: tuple[str, ...] = ()
    """Train on the captions of these shard sets."""
    files: tuple[str, ...] = ()
    """Train on the conversations of these instruction files."""
    max_texts: int = Field(default=200_000, ge=1)
    """Texts to learn merges from, taken evenly over all of them."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.folder is None) == (not (self.shards or self.files)):
            raise ValueError("give either a folder, or shards and files to train on")
        return self

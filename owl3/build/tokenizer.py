"""The tokenizer of a recipe as an artifact: Qwen2's own folder, or a tiny one learned from the corpus' words.

tokenizers/NAME/   tokenizer.json  tokenizer_config.json  manifest.json
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock

from owl3.build.config import TokenizerConfig
from owl3.build.drafts import Refused, clean_text
from owl3.build.importers.layouts import import_row
from owl3.build.pool import shard_tables
from owl3.build.rows import iter_json
from owl3.build.templates import load_templates
from owl3.errors import InputError
from owl3.manifest import Counts, Manifest, find_current, lock_path, now, read_manifest, tool_versions, write_manifest
from owl3.storage import sha256_of
from owl3.tokens import TextTokenizer, save_tokenizer, train_tiny

_WORDS = ("caption", "interleaved_caption", "selective_caption", "long_image", "distractor", "video", "text_reading")


def make_tokenizer(cfg: TokenizerConfig, workspace: Path) -> Manifest:
    """Make `tokenizers/NAME`, or find that it is done.

    Raises:
        InputError: when the folder holds no Qwen2 tokenizer, a file is missing, or there is no text to learn from.
    """
    workspace = workspace.absolute()
    folder = workspace / "tokenizers" / cfg.name
    parents = [read_manifest(workspace / "shards" / name) for name in cfg.shards]
    recipe = _recipe_of(cfg, workspace)
    with FileLock(lock_path(folder)):
        done = find_current(folder, recipe, parents)
        if done is not None:
            return done
        started = now()
        if cfg.folder is not None:
            tokenizer, counts = TextTokenizer.load(workspace / cfg.folder), Counts(seen=0, kept=0)
        else:
            texts = list(_texts(cfg, workspace))
            if not texts:
                raise InputError(f"tokenizer {cfg.name}: its shards and files hold no text to learn from")
            step = -(-len(texts) // cfg.max_texts)
            learned = texts[::step]
            dropped = {"not_selected": len(texts) - len(learned)} if len(learned) < len(texts) else {}
            tokenizer = train_tiny([*_template_words(), *learned], cfg.vocab_size)
            counts = Counts(seen=len(texts), kept=len(learned), dropped=dropped)
        save_tokenizer(tokenizer, folder)
        return write_manifest(
            folder,
            kind="tokenizer",
            name=cfg.name,
            recipe=recipe,
            parents=parents,
            counts=counts,
            stats={"vocab_size": tokenizer.vocab_size, "tokenizer_digest": tokenizer.digest},
            tools=tool_versions("tokenizers"),
            started=started,
        )


def _recipe_of(cfg: TokenizerConfig, workspace: Path) -> dict[str, Any]:
    """The config with input files by name and content, not by where they lie."""
    recipe = cfg.model_dump(mode="json")
    files = [workspace / path for path in cfg.files]
    missing = next((path for path in files if not path.is_file()), None)
    if missing is not None:
        raise InputError(f"tokenizer {cfg.name}: files: {missing} does not exist")
    recipe["files"] = [{"name": path.name, "sha256": sha256_of(path)} for path in files]
    if cfg.folder is not None:
        recipe["folder"] = TextTokenizer.load(workspace / cfg.folder).digest
    return recipe


def _texts(cfg: TokenizerConfig, workspace: Path) -> Iterator[str]:
    """Captions of kept rows, then every turn of the conversations."""
    for table_path in shard_tables(workspace, cfg.shards):
        table = pq.read_table(table_path, columns=["caption", "decision"])
        for caption in table.filter(pc.equal(table["decision"], "kept"))["caption"].to_pylist():
            if cleaned := clean_text(caption or ""):
                yield cleaned
    for name in cfg.files:
        for row in iter_json(workspace / name):
            try:
                record = import_row(row, "auto")
            except Refused:
                continue  # the builder of that file counts it with its reason; here only its words are missed
            for _, parts in [*record.turns, ("user", record.document)]:
                yield from (part for part in parts if isinstance(part, str) and part.strip())


def _template_words() -> Iterator[str]:
    """The builders' own words, so that questions are short for a tiny model too."""
    for builder in _WORDS:
        templates = load_templates(builder)
        for wordings in templates.words["en"].values():
            yield from wordings

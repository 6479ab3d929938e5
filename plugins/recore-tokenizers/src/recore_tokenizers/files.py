"""A tokenizer on disk: two JSON files, nothing that can execute.

`tokenizer.json` is the tokenizers library's own format: the vocabulary. `tokenizer_config.json` is what that
format has no place for: type of the ids, special rows, policy, retired items, and which items the tombstones
in the vocabulary stand for. Each file is written beside its place and moved there.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from recore.errors import Problem, RunFolderError
from recore_tokenizers.text import WORDS, plain, tombstone

if TYPE_CHECKING:
    from recore_tokenizers.items import ItemTokenizer

FORMAT = 1
VOCABULARY, CONFIG = "tokenizer.json", "tokenizer_config.json"


def save(tokenizer: ItemTokenizer, folder: Path) -> None:
    """Write both files, making the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    own, first = tokenizer.items_of(range(tokenizer.items)), len(tokenizer.specials)
    vocabulary = tokenizer.vocabulary()
    superseded = {
        str(number): own[number]
        for number in tokenizer.retired.tolist()
        if vocabulary[number + first] == tombstone(number)
    }
    config = {
        "tokenizer_class": "recore_tokenizers.ItemTokenizer",
        "format": FORMAT,
        "item_type": tokenizer.item_type,
        "unknown": tokenizer.unknown,
        "specials": [
            {"name": s.name, "id": s.id, "word": WORDS[s.name], "trainable": s.trainable}
            for s in tokenizer.specials
        ],
        "items": tokenizer.items,
        "retired": tokenizer.retired.tolist(),
        "superseded": superseded,
    }
    _replace(folder / VOCABULARY, tokenizer.backend.to_str(pretty=False))
    _replace(folder / CONFIG, json.dumps(config, ensure_ascii=False, indent=1) + "\n")


def load(folder: Path) -> ItemTokenizer:
    """Read both files. Raises RunFolderError when they are missing, broken, of another version, or do not
    agree."""
    from recore_tokenizers.items import ItemTokenizer

    config, vocabulary = _json(folder / CONFIG), _json(folder / VOCABULARY)
    if config.get("format") != FORMAT:
        raise RunFolderError(f"{folder / CONFIG}: expected format {FORMAT}, got {config.get('format')!r}")
    try:
        tokens: dict[str, int] = vocabulary["model"]["vocab"]
        specials = [(s["name"], s["id"], s["word"]) for s in config["specials"]]
        by_token = sorted(tokens, key=tokens.__getitem__)
        own = [plain(word) for word in by_token[len(specials) :]]
        for number, item in config["superseded"].items():
            own[int(number)] = str(item)
        numbers = [int(item) for item in own] if config["item_type"] == "integer" else None
        items = pl.Series(own, dtype=pl.String) if numbers is None else pl.Series(numbers, dtype=pl.Int64)
        made = ItemTokenizer(
            items, retired=config["retired"], unknown=config["unknown"], mask=len(specials) > 2
        )
        agree = (
            sorted(tokens.values()) == list(range(len(tokens)))
            and specials == [(s.name, s.id, WORDS[s.name]) for s in made.specials]
            and by_token[: len(specials)] == [word for _, _, word in specials]
            and len(items) == config["items"]
            and made.unknown in ("keep", "drop")
            and made.retired.tolist() == config["retired"]
            and {int(number) for number in config["superseded"]} <= set(config["retired"])
            and set(config["retired"]) <= set(range(len(items)))
            and by_token == made.vocabulary()
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, pl.exceptions.PolarsError) as error:
        raise RunFolderError(_broken(folder, f"{type(error).__name__}: {error}")) from error
    if not agree:
        raise RunFolderError(_broken(folder, f"{VOCABULARY} and {CONFIG} do not agree"))
    return made


def _broken(folder: Path, what: str) -> Problem:
    return Problem(f"{folder} does not hold a whole tokenizer: {what}", hint="save it again")


def _json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunFolderError(f"{path} is not there; `save_pretrained` writes it") from error
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(read, dict):
        raise RunFolderError(f"{path}: expected a JSON object, got {type(read).__name__}")
    return read


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".part")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)

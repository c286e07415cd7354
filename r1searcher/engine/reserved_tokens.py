"""Uses reserved tokens of a vocabulary for the protocol tags.

As plain text a tag is four to eight tokens, and a stop string may end inside a token. As one token each, a query's pair
of tags costs two tokens instead of eighteen, and every turn ends on a token boundary. Nothing is resized: many
vocabularies have tokens reserved for such a use, and only their names and their rows of weights change. The text of
the protocol stays what it was.
"""

import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1searcher.errors import InputError

if TYPE_CHECKING:
    import torch

_KEPT_FREE = re.compile(
    r"<\|?(?:reserved_special_token|reserved_token|reserved|unused|extra|extra_id|dummy|placeholder)_?\d+\|?>"
    r"|\[(?:control|unused|reserved)_?\d+\]"
)
"""Names under which vocabularies keep tokens free (Llama 3, Gemma, Qwen 1, T5, Phi 3, Mistral, BERT)."""

_CODE_MARKERS = re.compile(
    "<(?:repo_name|reponame|file_sep|filename|gh_stars|issue_(?:start|comment|closed)|empty_output"
    "|jupyter_(?:start|text|code|output|script))>"
)
"""Markers of raw repository files, in the vocabularies of StarCoder and SmolLM: unused unless such files are read."""

_PLAIN = "set model.reserved_tokens = false, and the tags are plain text"

_INPUT_ROWS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
_OUTPUT_ROWS = ("lm_head.weight", "embed_out.weight")


def has_tag_tokens(tokenizer: Any, tags: Iterable[str]) -> bool:
    """Whether a transformers tokenizer has one token for each tag."""
    return all(len(tokenizer(tag, add_special_tokens=False).input_ids) == 1 for tag in tags)


def assign_tag_tokens(source: Path, target: Path, tags: Sequence[str]) -> dict[str, int]:
    """Writes the model folder `source` (Hugging Face format) to `target` with one token for each tag; tag -> its id.

    The weights of a tag's token start from the tokens that spelled it, see `_rows`.
    Raises `InputError`, without writing anything, if the folder does not have a fast tokenizer, weights in safetensors
    format, or enough unused tokens.
    """
    from transformers import AutoTokenizer

    if not (source / "tokenizer.json").is_file():
        raise InputError(f"{source} has no tokenizer.json, so its tokens cannot be renamed: {_PLAIN}")
    weights = sorted(source.glob("*.safetensors"))
    if not weights:
        raise InputError(f"{source} has no weights in safetensors format, so tags cannot get tokens: {_PLAIN}")
    plain = AutoTokenizer.from_pretrained(source)
    if has_tag_tokens(plain, tags):
        raise InputError(f"{source} already has one token for each tag: set model.reserved_tokens = false")
    vocabulary = _read(source / "tokenizer.json")
    free = _free_tokens(vocabulary, source)
    if len(free) < len(tags):
        raise InputError(
            f"the vocabulary of {source} has {len(free)} unused tokens, the protocol's tags need {len(tags)}: {_PLAIN}"
        )
    names = dict(zip(free, tags, strict=False))
    ids = {tag: free[name] for name, tag in names.items()}
    rows = {ids[tag]: list(plain(tag, add_special_tokens=False).input_ids) for tag in tags}

    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_file() and path not in weights:
            shutil.copyfile(path, target / path.name)
    for path in weights:
        _write_weights(path, target / path.name, rows)
    _write(target / "tokenizer.json", _renamed_vocabulary(vocabulary, names))
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        if (target / name).is_file():
            _write(target / name, _renamed(_read(target / name), names))

    tagged = AutoTokenizer.from_pretrained(target)
    for tag, number in ids.items():
        if tagged(tag, add_special_tokens=False).input_ids != [number]:
            raise InputError(f"the tokenizer of {source} does not keep {tag} in one token: {_PLAIN}")
    return ids


def _free_tokens(vocabulary: Mapping[str, Any], source: Path) -> dict[str, int]:
    """Name -> id of the added tokens that neither a role (end of sequence, padding, …) nor the chat template uses."""
    config = _read(source / "tokenizer_config.json") if (source / "tokenizer_config.json").is_file() else {}
    roles = {_content(value) for key, value in config.items() if key.endswith("_token")}
    template = str(config.get("chat_template") or "")
    if (source / "chat_template.jinja").is_file():
        template += (source / "chat_template.jinja").read_text("utf-8")
    return {
        token["content"]: token["id"]
        for token in sorted(vocabulary.get("added_tokens", ()), key=lambda token: token["id"])
        if (_KEPT_FREE.fullmatch(token["content"]) or _CODE_MARKERS.fullmatch(token["content"]))
        and token["content"] not in roles
        and token["content"] not in template
    }


def _renamed_vocabulary(vocabulary: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    for token in vocabulary["added_tokens"]:
        if token["content"] in names:
            # Not "special": tags that the model writes must survive decoding.
            token.update(content=names[token["content"]], special=False, normalized=False, lstrip=False, rstrip=False)
    entries = vocabulary["model"].get("vocab")
    if isinstance(entries, dict):
        vocabulary["model"]["vocab"] = {names.get(name, name): number for name, number in entries.items()}
    elif isinstance(entries, list):  # unigram models list (piece, score) by id
        vocabulary["model"]["vocab"] = [[names.get(piece, piece), score] for piece, score in entries]
    return vocabulary


def _renamed(settings: Any, names: Mapping[str, str]) -> Any:
    """A tokenizer's settings under the new names, and no tag among the special tokens."""
    if isinstance(settings, dict):
        if settings.get("content") in names:
            settings = {**settings, "special": False, "normalized": False, "lstrip": False, "rstrip": False}
        return {
            names.get(key, key): [one for one in value if _content(one) not in names]
            if key in ("additional_special_tokens", "extra_special_tokens") and isinstance(value, list)
            else _renamed(value, names)
            for key, value in settings.items()
        }
    if isinstance(settings, list):
        return [_renamed(value, names) for value in settings]
    return names.get(settings, settings) if isinstance(settings, str) else settings


def _content(token: Any) -> Any:
    """The text of a token that is written as a string or as {"content": …}."""
    return token.get("content") if isinstance(token, dict) else token


def _write_weights(source: Path, target: Path, rows: Mapping[int, Sequence[int]]) -> None:
    """Copies a weights file; in tables with one row per token, `rows` maps a row to those that spelled its token."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(source, "pt") as file:
        metadata = file.metadata()
        tables = [name for name in file.keys() if name.endswith(_INPUT_ROWS + _OUTPUT_ROWS)]  # noqa: SIM118
    if not tables:
        shutil.copyfile(source, target)
        return
    tensors = load_file(source)
    for name in tables:
        tensors[name][list(rows)] = _rows(tensors[name], list(rows.values())).to(tensors[name].dtype)
    save_file(tensors, target, metadata)


def _rows(table: "torch.Tensor", spelled: Sequence[Sequence[int]]) -> "torch.Tensor":
    """Rows (tags, width) for tokens that were `spelled` by several: their means, made distinct, of a row's length.

    Tags are spelled by almost the same tokens, so plain means point almost the same way (cosine .94 to .97 among the
    query and documents tags of SmolLM2, .46 between any two of its tokens). A model with frozen embeddings then
    confuses them permanently. Relative to the mean of all rows, the means are replaced by the nearest orthogonal set
    (symmetric orthogonalization, Löwdin 1950).
    """
    import torch

    center = table.float().mean(dim=0)
    away = torch.stack([table[list(pieces)].float().mean(dim=0) for pieces in spelled]) - center
    left, _, right = torch.linalg.svd(away, full_matrices=False)
    length = table.float().norm(dim=1).mean()
    spread: torch.Tensor = (left @ right) * (length**2 - center.norm() ** 2).clamp_min(0).sqrt()
    return center + spread


def _read(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return data


def _write(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, ensure_ascii=False, indent=1), "utf-8")

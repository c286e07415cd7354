"""Loads a model of transformers, and batches what it reads.

All weights must come from the model's files: new ones of random values would rank too.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from r1searcher.errors import InputError


def import_torch(what: str, extra: str) -> Any:
    """torch, for a `what`. Raises `InputError` with the extra that installs it."""
    try:
        import torch
    except ImportError as error:
        raise InputError(f"{what} needs torch: pip install 'r1searcher[{extra}]'") from error
    return torch


def load(
    model: str, what: str, kind: str, remote_code: bool, check: Callable[[Any], None], ignored: tuple[str, ...] = ()
) -> tuple[Any, Any]:
    """The tokenizer and the model of a Hugging Face folder or name, by the auto class `kind`; `check` gets its config.

    Raises `InputError` if it cannot be loaded, or its files lack weights, except those whose names begin with one of
    `ignored`.
    """
    import transformers
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        check(transformers.AutoConfig.from_pretrained(model, trust_remote_code=remote_code))
        tokenizer = transformers.AutoTokenizer.from_pretrained(model, trust_remote_code=remote_code)
        loaded, report = getattr(transformers, kind).from_pretrained(
            model, trust_remote_code=remote_code, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError(f"the {what} {model} cannot be loaded: {reason}") from error
    if missing := sorted(name for name in report["missing_keys"] if not name.startswith(ignored)):
        raise InputError(f"{model} is not a {what}: its files have no {missing[0]}")
    return tokenizer, loaded


def forward_passes(
    tokenizer: Any, encoded: Mapping[str, Sequence[Any]], batch_size: int, device: str
) -> Iterator[tuple[list[int], Any]]:
    """The rows of a tokenizer's output in batches: the places of a batch's rows, and its padded tensors.

    Rows of similar length share a forward pass, to have little padding.
    """
    lengths = [len(ids) for ids in encoded["input_ids"]]
    order = sorted(range(len(lengths)), key=lambda place: lengths[place])
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        rows = [{name: values[place] for name, values in encoded.items()} for place in places]
        yield places, tokenizer.pad(rows, return_tensors="pt").to(device)


def longest(tokenizer: Any, model: Any) -> int:
    """Tokens that the model can read."""
    positions = getattr(model.config, "max_position_embeddings", None)
    return int(min(tokenizer.model_max_length, positions or tokenizer.model_max_length))

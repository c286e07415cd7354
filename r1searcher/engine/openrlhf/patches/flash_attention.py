"""OpenRLHF without flash-attn 2, which has to be compiled.

`openrlhf.models.ring_attn_utils` imports its padding functions and calls them for packed samples only. They are a few
lines of indexing, written here from their results. Ring attention needs flash-attn itself.
"""

import contextlib
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from r1searcher.engine.import_patches import Patch
from r1searcher.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def has_flash_attention_2() -> bool:
    """Whether flash-attn 2 is installed. flash-attn-4 has a folder of the same name, without these modules."""
    return _exists("flash_attn.bert_padding")


def has_flash_attention_4() -> bool:
    """Whether flash-attn-4 is installed; it is not imported, for which it needs the CUDA packages."""
    return _exists("flash_attn.cute")


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def index_first_axis(rows: "Tensor", indices: "Tensor") -> "Tensor":
    """The rows (n, …) at `indices` (m)."""
    return rows[indices]


def unpad_input(hidden: "Tensor", mask: "Tensor") -> "tuple[Tensor, Tensor, Tensor, int, Tensor]":
    """Rows of a padded batch (batch, tokens, …) where `mask` (batch, tokens) is true.

    Returns the rows (n, …), their indices in the flattened batch, the cumulated lengths (batch + 1), the longest
    length, and all lengths.
    """
    import torch

    lengths = mask.sum(-1, dtype=torch.int32)
    places = torch.nonzero(mask.flatten()).flatten()
    starts = torch.nn.functional.pad(torch.cumsum(lengths, 0, dtype=torch.int32), (1, 0))
    return hidden.flatten(0, 1)[places], places, starts, int(lengths.max()), lengths


def pad_input(rows: "Tensor", places: "Tensor", batch: int, tokens: int) -> "Tensor":
    """The inverse: a batch (batch, tokens, …) with the rows at their indices and zeros elsewhere."""
    padded = rows.new_zeros(batch * tokens, *rows.shape[1:])
    return padded.index_put((places,), rows).view(batch, tokens, *rows.shape[1:])


def _refuse(*_: object, **__: object) -> None:
    raise InputError("ring attention needs flash-attn 2, which is not installed in this environment")


@contextlib.contextmanager
def _for_one_import() -> Iterator[None]:
    """flash-attn's modules exist while the importing module's body runs. Elsewhere flash-attn must look absent: code
    that finds its name assumes that the kernels exist."""
    if has_flash_attention_2():
        yield
        return
    from einops import rearrange

    padding = {"index_first_axis": index_first_axis, "unpad_input": unpad_input, "pad_input": pad_input}
    provided: dict[str, dict[str, Any]] = {
        "flash_attn": {},
        "flash_attn.bert_padding": {**padding, "rearrange": rearrange},
        "flash_attn.utils": {},
        "flash_attn.utils.distributed": {"all_gather": _refuse},
    }
    before = {name: sys.modules.get(name) for name in provided}
    for name, functions in provided.items():
        module = sys.modules[name] = ModuleType(name)
        vars(module).update(functions)
    try:
        yield
    finally:
        for name, module_before in before.items():
            del sys.modules[name]
            if module_before is not None:
                sys.modules[name] = module_before


PATCHES = [Patch("openrlhf.models.ring_attn_utils", (), around=_for_one_import)]

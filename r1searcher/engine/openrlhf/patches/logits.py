"""Logits only where a trained token is predicted, on both devices.

The head's logits are the largest tensors of a step (tokens x vocabulary, in fp32), and most tokens are documents, whose
logits nothing reads.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

from r1searcher.engine.environment import ALL_LOGITS
from r1searcher.engine.import_patches import Patch, after_import

PATCHES: list[Patch] = []

after = after_import(PATCHES)


class _Trained:
    """Positions of trained tokens, for which the vocabulary's head must be computed.

    `loss_mask` (rows x tokens - 1) is set by the SFT trainer's loop, whose forward pass does not get it; `keep` holds
    while one forward pass runs, in the layout of its input: rows x tokens, or 1 x tokens of packed samples.
    """

    loss_mask: Any = None
    keep: Any = None


@after("openrlhf.models.actor", "Actor.forward", "log_probs_from_logits", "compute_entropy")
def head_on_action_tokens(module: ModuleType) -> None:
    """The stock forward pass computes the logits of all tokens, and then drops those outside the mask.

    Log-probabilities (and entropies) elsewhere are 0 here. Same gradients.
    """
    if os.environ.get(ALL_LOGITS):
        return
    stock_forward = module.Actor.forward
    stock_log_probs, stock_entropy = module.log_probs_from_logits, module.compute_entropy

    def log_probs_from_logits(logits: Any, labels: Any, temperature: float = 1.0) -> Any:
        if _Trained.keep is None:
            return stock_log_probs(logits, labels, temperature)
        return _spread(stock_log_probs(logits, labels[_Trained.keep], temperature))

    def compute_entropy(logits: Any) -> Any:
        return stock_entropy(logits) if _Trained.keep is None else _spread(stock_entropy(logits))

    def forward(self: Any, sequences: Any, action_mask: Any = None, attention_mask: Any = None, **options: Any) -> Any:
        mask = action_mask
        if mask is None and options.get("return_logprobs"):
            mask = _Trained.loss_mask
        if mask is None:
            return stock_forward(self, sequences, action_mask, attention_mask, **options)
        keep = _predicting(sequences, mask)
        if self.packing_samples:
            keep = keep[attention_mask.bool()].unsqueeze(0)
        network = getattr(self.model, "module", self.model)
        hook = network.get_output_embeddings().register_forward_pre_hook(lambda _head, inputs: (inputs[0][keep],))
        _Trained.keep = keep
        try:
            return stock_forward(self, sequences, action_mask, attention_mask, **options)
        finally:
            _Trained.keep = None
            hook.remove()

    module.Actor.forward = forward
    module.log_probs_from_logits = log_probs_from_logits  # type: ignore[attr-defined]
    module.compute_entropy = compute_entropy  # type: ignore[attr-defined]


def _predicting(sequences: Any, mask: Any) -> Any:
    """Where a token of `mask` (rows x its last tokens) is predicted: rows x tokens; position t predicts token t + 1."""
    import torch

    keep = torch.zeros_like(sequences, dtype=torch.bool)
    keep[:, sequences.shape[1] - 1 - mask.shape[1] : -1] = mask.bool()
    return keep


def _spread(found: Any) -> Any:
    """One value per kept position as a tensor of all positions, 0 elsewhere."""
    return found.new_zeros(_Trained.keep.shape).masked_scatter(_Trained.keep, found)


@after("openrlhf.trainer.sft_trainer", "iter_grad_accum_global_norm")
def sft_shares_its_loss_mask(module: ModuleType) -> None:
    """The SFT trainer computes the log-probabilities of all tokens, then drops those outside its loss mask."""
    stock = module.iter_grad_accum_global_norm

    def with_mask(
        batches: Iterable[Any], strategy: Any, accumulated: int, mask_of: Callable[[Any], Any]
    ) -> Iterator[Any]:
        for batch, info in stock(batches, strategy, accumulated, mask_of):
            _Trained.loss_mask = mask_of(batch)
            try:
                yield batch, info
            finally:
                _Trained.loss_mask = None

    module.iter_grad_accum_global_norm = with_mask  # type: ignore[attr-defined]

"""Rows in the order of their file, with the token ids of episodes."""

from types import ModuleType
from typing import Any

from r1searcher.engine.import_patches import Patch


def _in_the_order_of_the_file(module: ModuleType) -> None:
    """OpenRLHF shuffles prompts with a generator that it never seeds, so runs with the same seed see different orders,
    and it shuffles SFT rows across updates with a planned mixture. Our files are already in training order.
    """
    stock = module.DeepspeedStrategy.setup_dataloader

    def setup_dataloader(
        self: Any,
        data: Any,
        batch_size: int,
        pin_memory: bool = False,
        shuffle: bool = True,
        *rest: Any,
        **options: Any,
    ) -> Any:
        return stock(self, data, batch_size, pin_memory, False, *rest, **options)

    module.DeepspeedStrategy.setup_dataloader = setup_dataloader


def _rows_as_in_episodes(module: ModuleType) -> None:
    """An episode's turn is tokenized separately from the text before it, and ends where a tag ends.

    The stock dataset tokenizes both together, which gives newlines and the turn's first word other ids than in
    episodes and shifts the loss mask by a token; and it trains " <eos>" after each turn, which no turn has.
    """
    import torch

    def __getitem__(self: Any, index: int) -> tuple[Any, Any, Any]:  # noqa: N807
        before, turn = (
            self.tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in (self.prompts[index], self.responses[index])
        )
        ids = torch.tensor([before + turn])
        loss_mask = torch.zeros_like(ids, dtype=torch.float32)
        loss_mask[0, len(before) - 1 : -1] = 1  # position t predicts token t + 1
        return ids, torch.ones_like(ids), loss_mask

    module.SFTDataset.__getitem__ = __getitem__


PATCHES = [
    Patch(
        "openrlhf.utils.deepspeed.deepspeed", ("DeepspeedStrategy.setup_dataloader",), apply=_in_the_order_of_the_file
    ),
    Patch("openrlhf.datasets.sft_dataset", ("SFTDataset.__getitem__",), apply=_rows_as_in_episodes),
]

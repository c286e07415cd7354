"""What the engine trains on, and in which order: the rows of the run's data file, from the first to the last.

Prompts of a stage are {"input", "label"}. Rows of the SFT are {"input": everything before a turn, "output": the
turn}; loss falls on the output alone, so a document, which is never an output, is never trained.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, TypeVar

from r1searcher.engine.import_patches import Patch

Row = TypeVar("Row")


def by_length_within_updates(rows: Sequence[Row], batch: int, lengths: Sequence[int]) -> list[Row]:
    """The same rows in each update of `batch`, shortest first, so that micro-batches hold little padding.

    The loss of an update is one mean over its tokens, whatever their order. A last, incomplete update is left out.
    """
    order: list[int] = []
    for start in range(0, len(rows) - batch + 1, batch):
        order += sorted(range(start, start + batch), key=lambda i: lengths[i])
    return [rows[i] for i in order]


def _in_the_order_of_the_file(module: ModuleType) -> None:
    """OpenRLHF shuffles prompts with a generator that it never seeds, so no two runs of a seed see the same order, and
    it shuffles SFT rows across the updates that were mixed with care. Our files are in the order that is wanted.
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
    """An episode's turn is tokenized apart from what stands before it, and ends where a tag ends.

    The stock dataset tokenizes both together, where newlines and the turn's first word get other ids than the ones
    that the model meets, and the loss mask slips by a token; and it trains " <eos>" behind each turn, which none has.
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

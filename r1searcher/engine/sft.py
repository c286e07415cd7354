"""The warm-up with OpenRLHF's SFT trainer: rows laid out for its sampler, and one patch of its data set.

A row is {"input": everything before a turn, "output": the turn}. Loss falls on the output alone, so a document, which
is never an output, is never trained.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, TypeVar

from r1searcher.engine.hooks import Patch

Row = TypeVar("Row")


def lay_out(rows: Sequence[Row], batch: int, seed: int, lengths: Sequence[int]) -> list[Row]:
    """The order in a file that makes OpenRLHF train `rows` in theirs, `batch` rows an update; a rest is left out.

    Its sampler draws a permutation that depends on the seed and the number of rows alone; rows are placed where it
    will look for them. Inside an update, whose loss is one mean over its tokens whatever the order, rows of like
    length stand together, so that micro-batches hold little padding.
    """
    import torch

    count = len(rows) // batch * batch
    order: list[int] = []
    for start in range(0, count, batch):
        order += sorted(range(start, start + batch), key=lambda i: lengths[i])
    drawn = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    placed = dict(zip(drawn, order, strict=True))
    return [rows[placed[place]] for place in range(count)]


def _rows_as_in_episodes(module: ModuleType) -> None:
    """An episode's turn is tokenised apart from what stands before it, and ends where a tag ends.

    The stock data set tokenises both together, where newlines and the turn's first word get other ids than the ones
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


PATCHES = [Patch("openrlhf.datasets.sft_dataset", ("SFTDataset.__getitem__",), apply=_rows_as_in_episodes)]

"""Rows in the order of their file, whole traces with the token ids of episodes."""

from types import ModuleType
from typing import Any

from r1searcher.engine.import_patches import Patch
from r1searcher.engine.training_rows import trace_tokens
from r1searcher.episodes.tokens import HuggingFaceTokenizer


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


def _traces_as_in_episodes(module: ModuleType) -> None:
    """The stock dataset trains one turn per row, so that a prompt and its documents are computed again for each turn.

    It also tokenizes a turn together with the text before it, which gives other ids than in episodes and shifts the
    loss mask by a token; it trains " <eos>" after each turn, which no turn has; and it drops long rows silently. Here a
    row is a whole trace. The trainer divides the loss of an update by its trained tokens, so an update with the same
    traces has the same loss and gradients as with a row for each turn.
    """
    import torch

    def __init__(self: Any, dataset: Any, tokenizer: Any, *_: Any, **__: Any) -> None:  # noqa: N807
        self.rows, self.tokenizer = dataset, tokenizer  # the stock collate_fn pads with the tokenizer's token
        self.encode = HuggingFaceTokenizer(tokenizer).encode

    def __len__(self: Any) -> int:  # noqa: N807
        return len(self.rows)

    def __getitem__(self: Any, index: int) -> tuple[Any, Any, Any]:  # noqa: N807
        ids, trained = trace_tokens(self.rows[index]["segments"], self.encode)
        tokens = torch.tensor([ids])
        loss_mask = torch.tensor([[*trained[1:], False]], dtype=torch.float32)  # position t predicts token t + 1
        return tokens, torch.ones_like(tokens), loss_mask

    for method in (__init__, __len__, __getitem__):
        setattr(module.SFTDataset, method.__name__, method)


PATCHES = [
    Patch(
        "openrlhf.utils.deepspeed.deepspeed", ("DeepspeedStrategy.setup_dataloader",), apply=_in_the_order_of_the_file
    ),
    Patch(
        "openrlhf.datasets.sft_dataset",
        ("SFTDataset.__init__", "SFTDataset.__len__", "SFTDataset.__getitem__"),
        apply=_traces_as_in_episodes,
    ),
]

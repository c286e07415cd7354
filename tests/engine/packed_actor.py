"""OpenRLHF's own actor on padded and on packed samples, in a process that no other patch has changed.

Prints the largest differences of log-probabilities and gradients, and the spread of the log-probabilities, as JSON.
"""

import json
import sys


def main() -> None:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from r1searcher.engine import import_patches
    from r1searcher.engine.openrlhf.patches import flash_attention

    import_patches.install(flash_attention.PATCHES)
    from openrlhf.models.actor import Actor

    torch.manual_seed(7)
    config = Qwen2Config(
        vocab_size=211,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_implementation="eager",
        use_cache=False,  # as OpenRLHF sets it; with a cache transformers does not separate packed sequences
    )
    network = Qwen2ForCausalLM(config).eval()
    lengths, width = (5, 9, 12), 12
    tokens = torch.randint(3, 200, (len(lengths), width), generator=torch.Generator().manual_seed(1))
    mask = torch.stack([torch.arange(width) >= width - length for length in lengths]).long()  # padded on the left
    actions = mask[:, 1:] * mask[:, :-1]  # not the first token of a row, which would be predicted from padding
    found = {}
    for packed in (False, True):
        actor = Actor(network)
        actor.packing_samples = packed  # what its constructor sets for a model that it loads itself
        network.zero_grad()
        log_probs = actor(tokens, actions, attention_mask=mask)
        (log_probs * actions).sum().backward()
        found[packed] = (log_probs.detach() * actions, network.model.layers[0].mlp.up_proj.weight.grad.clone())
    differences = [float((padded - packed).abs().max()) for padded, packed in zip(*found.values(), strict=True)]
    json.dump(
        {"log_probs": differences[0], "gradient": differences[1], "spread": float(found[False][0].std())}, sys.stdout
    )


if __name__ == "__main__":
    main()

"""Compose a reward from parts and compute it for a trajectory.

    python examples/compose_a_reward.py

In a settings file, the same composition is a list of [[reward.parts]] tables; docs/rewards.md lists all parts.
"""

from r1searcher.evaluation.predictions import from_text
from r1searcher.rewards.recipes import Part, reward_function

TRANSCRIPT = (
    " I need the director. <|begin_of_query|> Silver Harbor director <|end_of_query|>\n\n"
    "<|begin_of_documents|>\n(1)Title: Silver Harbor Text: A film directed by Ada Quill.\n<|end_of_documents|>\n\n"
    "The film says Ada Quill. </think> <answer> Ada Quill, director </answer>"
)
"""What follows the prompt's <think>: the model's text and, between the documents tags, the environment's."""

PARTS = (
    Part("f1"),
    Part("retrieval", weight=0.5),
    Part("format", weight=0.0, if_zero=-2.0),  # 0 for the right format, -2 otherwise
)


def main() -> None:
    compute = reward_function(PARTS)
    broken = TRANSCRIPT.replace("</think>", "")
    for name, text in (("as written", TRANSCRIPT), ("thinking not closed", broken)):
        reward = compute(from_text("Who directed Silver Harbor?", ("Ada Quill",), text))
        parts = ", ".join(f"{part} {value:+.2f}" for part, value in reward.parts.items())
        print(f"{name:20} {reward.total:+.2f} = {parts}")


if __name__ == "__main__":
    main()

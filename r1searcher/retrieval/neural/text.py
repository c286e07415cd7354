"""What models read of a passage."""

from r1searcher.corpora.passage import Passage


def text_of(passage: Passage) -> str:
    return f"{passage.title}\n{passage.text}" if passage.title else passage.text

"""The tags with which a model speaks to its environment (R1-Searcher, arXiv 2503.05592, section 3)."""

THINK, END_THINK = "<think>", "</think>"
ANSWER, END_ANSWER = "<answer>", "</answer>"
QUERY, END_QUERY = "<|begin_of_query|>", "<|end_of_query|>"
DOCUMENTS, END_DOCUMENTS = "<|begin_of_documents|>", "<|end_of_documents|>"

TAGS = (THINK, END_THINK, ANSWER, END_ANSWER, QUERY, END_QUERY, DOCUMENTS, END_DOCUMENTS)

STOPS = (END_QUERY, END_ANSWER, DOCUMENTS)
"""Generation halts behind each of these: a query to run, an answer, or documents that the model makes up itself."""


def query_of(turn: str) -> str | None:
    """The query that a turn closes, or None when it is malformed.

    >>> query_of(" I look it up. <|begin_of_query|> capital of  Oslo <|end_of_query|>")
    'capital of Oslo'
    """
    if not turn.endswith(END_QUERY) or turn.count(QUERY) != 1 or turn.count(END_QUERY) != 1:
        return None
    query = " ".join(turn.partition(QUERY)[2].removesuffix(END_QUERY).split())
    return query or None


def answer_of(turn: str) -> str | None:
    """The text of a turn's last closed answer, stripped; None when there is none.

    >>> answer_of("So it is Oslo. </think> <answer> Oslo </answer>")
    'Oslo'
    """
    before, closed, _ = turn.rpartition(END_ANSWER)
    if not closed or ANSWER not in before:
        return None
    return before.rpartition(ANSWER)[2].strip()

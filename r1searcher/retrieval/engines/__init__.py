"""Search engines, one file per kind: its settings and its retriever."""

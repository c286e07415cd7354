"""Addresses of files on the Hugging Face hub."""

import os

HUB = "https://huggingface.co"


def hub_file(repository: str, path: str) -> str:
    """The URL of a file. `repository` is `owner/name` of a model, with `datasets/` before it for a dataset.

    HF_ENDPOINT names another hub, as it does for Hugging Face's own tools.
    """
    hub = os.environ.get("HF_ENDPOINT") or HUB
    return f"{hub.rstrip('/')}/{repository}/resolve/main/{path}"

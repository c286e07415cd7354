"""Addresses of files on the Hugging Face hub."""

import os
from urllib.parse import quote

HUB = "https://huggingface.co"
TOKEN = "HF_TOKEN"
"""Environment variable of the key for private repositories and for uploads."""


def hub_address() -> str:
    """The hub: HF_ENDPOINT names another one, as it does for Hugging Face's own tools."""
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def hub_file(repository: str, path: str, revision: str = "main") -> str:
    """The URL of a file. `repository` is `owner/name` of a model, with `datasets/` before it for a dataset; `revision`
    is a branch, a tag or a commit."""
    return f"{hub_address()}/{repository}/resolve/{quote(revision, safe='')}/{path}"

"""Indexes in dataset repositories of the Hugging Face hub."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from r1searcher.common.download import download
from r1searcher.common.http import Key
from r1searcher.common.hub import TOKEN, hub_address, hub_file
from r1searcher.common.terminal import visible
from r1searcher.errors import InputError, R1Error, ServiceError
from r1searcher.retrieval.indexing.folder import empty
from r1searcher.retrieval.indexing.integrity import CHECKSUMS, MAX_CHECKSUMS_BYTES, IndexFiles, ListedFiles
from r1searcher.retrieval.indexing.received import OnProgress, ReceivedIndex

_SCHEME = "hf://"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"


@dataclass(frozen=True, slots=True)
class HubDataset:
    """`hf://datasets/OWNER/NAME`, or with `@REVISION`: a branch, a tag or a commit."""

    name: str
    revision: str = "main"
    resumes = True

    @classmethod
    def parse(cls, url: str) -> Self | None:
        """None for something else than `hf://…`; raises `InputError` for one that is malformed."""
        if not url.startswith(_SCHEME):
            return None
        found = re.fullmatch(rf"{_SCHEME}datasets/({_NAME}/{_NAME})(?:@([A-Za-z0-9][A-Za-z0-9._/-]{{0,199}}))?", url)
        if not found:
            raise InputError(f"{url[:200]} is not of the form hf://datasets/OWNER/NAME or …@REVISION.")
        return cls(found[1], found[2] or "main")

    def __str__(self) -> str:
        return f"{_SCHEME}datasets/{self.name}@{self.revision}"

    def fetch(self, work: Path, on_progress: OnProgress) -> None:
        """Downloads the index to `work`, without what is already there. Raises `ValueError` for a malformed list of
        files, `InputError` if there is none, and `ServiceError` if a download fails."""
        key = Key.from_environment(TOKEN)
        listing = work / f"{CHECKSUMS}.new"
        listing.unlink(missing_ok=True)
        try:
            download(self._url(CHECKSUMS), listing, most=MAX_CHECKSUMS_BYTES, key=key)
        except ServiceError as error:
            if error.transient:
                raise
            raise InputError(
                f"{self} has no index that can be read ({error}): check the name, and set {TOKEN} if it is private."
            ) from None
        checksums = listing.read_bytes()
        old = work / CHECKSUMS
        if old.exists() and old.read_bytes() != checksums:
            empty(work)
        index = ReceivedIndex(work, checksums, on_progress)
        listing.unlink(missing_ok=True)
        for name, listed in sorted(index.files.items()):
            if not index.keep(name):
                download(
                    self._url(name),
                    index.path(name),
                    size=listed.size,
                    most=listed.size,
                    checksum=f"sha256:{listed.sha256}",
                    key=key,
                    on_progress=lambda done, total: index.progress(done),
                )
                index.accept(name)
        index.require_all()

    def upload(self, folder: Path, files: ListedFiles, overwrite: bool) -> None:
        """One commit with the index in `folder`. A repository that does not exist is created, private.

        Raises `InputError` for a damaged index, without a key, and for an index that is already there; `ServiceError`
        if the hub refuses or fails.
        """
        key = Key.from_environment(TOKEN)
        if key is None:
            raise InputError(f"{self} needs a key that may write: set {TOKEN}.")
        IndexFiles(folder, thorough=True)
        from huggingface_hub import HfApi
        from huggingface_hub.utils import disable_progress_bars

        if not sys.stderr.isatty():
            disable_progress_bars()
        where = {"repo_id": self.name, "repo_type": "dataset"}
        hub = HfApi(hub_address(), token=key.value)
        folders = sorted({name.partition("/")[0] for name in files if "/" in name})
        try:
            if not hub.repo_exists(**where):
                hub.create_repo(**where, private=True, exist_ok=True)
            if self.revision != "main":
                hub.create_branch(**where, branch=self.revision, exist_ok=True)
            if not overwrite and hub.file_exists(**where, filename=CHECKSUMS, revision=self.revision):
                raise InputError(f"{self} already contains an index: choose another name, or add --overwrite.")
            hub.upload_folder(
                **where,
                revision=self.revision,
                folder_path=folder,
                allow_patterns=[CHECKSUMS, *files],
                delete_patterns=[f"{name}/*" for name in folders],  # files of an earlier index
                commit_message="Index",
            )
        except R1Error:
            raise
        except Exception as error:  # the client's own, HTTP's and the operating system's
            reason = key.redact((str(error).strip() or type(error).__name__).splitlines()[0])
            raise ServiceError(f"{self} could not be written: {visible(reason)[:300]}") from None

    def _url(self, name: str) -> str:
        return hub_file(f"datasets/{self.name}", name, self.revision)

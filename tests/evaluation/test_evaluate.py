"""`r1s evaluate` end to end with everything real but the weights: the server's model is a rule."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r1searcher.common import terminal
from r1searcher.errors import InputError, R1Error
from r1searcher.evaluation.ask import AskRequest, run_ask
from r1searcher.evaluation.evaluate import EvaluationRequest, evaluate
from r1searcher.evaluation.judge import JudgeRequest
from r1searcher.evaluation.predictions import read_predictions
from r1searcher.evaluation.target import find_target
from tests.retrieval.serving import serving

QUIET = terminal.console(file=open(os.devnull, "w"))  # noqa: SIM115

Make = Callable[..., EvaluationRequest]


@pytest.fixture
def request_for(index: Path, questions: Path, tmp_path: Path, searcher: Any) -> Make:
    def make(**changes: Any) -> EvaluationRequest:
        overrides = {
            "retrieval.url": str(index),
            "model.prompt": str(prompt),
            "model.chat_template": False,
            "retrieval.retry_timeout_s": 0.5,
            **changes.pop("overrides", {}),
        }
        arguments = {"model": searcher.url, "datasets": [str(questions)], "to": tmp_path / "report", **changes}
        return EvaluationRequest(**arguments, overrides=overrides)

    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Question: {question}\n")
    return make


def test_every_question_is_played_scored_and_reported(request_for: Make, searcher: Any) -> None:
    request = request_for()
    figures = evaluate(request, QUIET)["capitals"]
    assert figures.n == 6
    assert figures.metrics["em"].value == 1
    assert figures.metrics["searches"].value == 1
    assert figures.metrics["format"].value == 1
    assert len(searcher.calls) == 12
    report = json.loads((request.to / "report.json").read_text())
    assert report["datasets"]["capitals"]["em"]["value"] == figures.metrics["em"].value
    manifest = report["manifest"]
    assert manifest["datasets"]["capitals"]["n"] == 6
    assert manifest["retriever"]["passages"] == 6
    assert manifest["episode"]["top_k"] == 5
    for key in ("seed", "prompt_sha256", "versions"):
        assert manifest[key]
    assert "| EM" in (request.to / "report.md").read_text()
    predictions = list(read_predictions(request.to / "predictions.jsonl"))
    assert next(p.question for p in predictions) == "What is the capital of Norway?"
    assert all(p.trajectory.token_ids for p in predictions)


def test_secrets_of_urls_are_in_no_file_and_in_no_output(
    request_for: Make, searcher: Any, serve: Any, index: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    judge = serve(lambda path, body: (200, {"choices": [{"message": {"content": "True"}}]}))
    with serving(str(index)) as address:
        request = request_for(
            model=f"{searcher.url}/v1?token=geheim",
            judge=JudgeRequest(url=f"{judge.url}?token=geheim", model="j"),
            overrides={"retrieval.url": f"{address}/retrieve?token=geheim"},
        )
        evaluate(request, terminal.console(stderr=True))
    manifest = json.loads((request.to / "manifest.json").read_text())
    assert manifest["model"] == f"{searcher.url}/v1?token=…"
    assert manifest["retriever"]["url"] == manifest["retriever"]["name"] == f"{address}/retrieve?token=…"
    for file in request.to.iterdir():
        assert "geheim" not in file.read_text("utf-8")
    assert "geheim" not in "".join(capsys.readouterr())
    assert "geheim" not in str(request_for(model=f"{searcher.url}?token=geheim", to=None).folder.path)


@pytest.mark.parametrize(
    "changes",
    [{"model": "http://me:geheim@h"}, {"judge": JudgeRequest(url="http://me:geheim@h", model="j")}, {"overrides": 1}],
)
def test_user_and_password_in_a_url_are_refused_before_anything_is_played(
    request_for: Make, searcher: Any, changes: dict[str, Any]
) -> None:
    if "overrides" in changes:
        changes = {"overrides": {"retrieval.url": "http://me:geheim@h/retrieve"}}
    request = request_for(**changes)
    with pytest.raises(InputError, match="leave user and password out of the URL") as raised:
        evaluate(request, QUIET)
    assert "geheim" not in str(raised.value)
    assert not request.to.exists()
    assert searcher.calls == []


def test_a_key_that_cannot_be_sent_is_refused_before_anything_is_played(
    request_for: Make, searcher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("R1S_JUDGE_KEY", "geheim\n")
    with pytest.raises(InputError, match="R1S_JUDGE_KEY cannot be sent") as raised:
        evaluate(request_for(judge=JudgeRequest(url="http://127.0.0.1:9", model="j")), QUIET)
    assert "geheim" not in str(raised.value)
    assert searcher.calls == []


def test_the_model_reads_and_returns_token_ids(request_for: Make, searcher: Any) -> None:
    evaluate(request_for(limit=1), QUIET)
    first, second = searcher.calls
    assert all(isinstance(token, int) for token in first["prompt"])
    assert second["prompt"][: len(first["prompt"])] == first["prompt"]
    assert first["temperature"] == 0


def test_an_interrupted_evaluation_plays_only_what_is_missing(request_for: Make, searcher: Any) -> None:
    request = request_for()
    evaluate(request, QUIET)
    file = request.to / "predictions.jsonl"
    whole = file.read_text().splitlines(keepends=True)
    searcher.calls.clear()
    file.write_text(whole[4] + whole[1] + whole[0][:100])  # out of order, and cut while a line was written
    figures = evaluate(request, QUIET)["capitals"]
    assert len(searcher.calls) == 2 * 4
    assert figures.n == figures.predictions == 6
    again = [json.loads(line) for line in file.read_text().splitlines()]
    before = [json.loads(line) for line in whole]
    assert [(r["index"], r["segments"]) for r in again] == [(r["index"], r["segments"]) for r in before]


def test_a_finished_evaluation_asks_the_model_nothing(request_for: Make, searcher: Any) -> None:
    evaluate(request_for(), QUIET)
    searcher.calls.clear()
    evaluate(request_for(), QUIET)
    assert searcher.calls == []


def test_another_evaluation_is_never_mixed_in(request_for: Make) -> None:
    evaluate(request_for(), QUIET)
    with pytest.raises(InputError, match=r"holds another evaluation \(different: episode\)"):
        evaluate(request_for(overrides={"episode.top_k": 2}), QUIET)


def test_a_folder_of_other_things_is_left_alone(request_for: Make, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="not an evaluation"):
        evaluate(request_for(to=tmp_path), QUIET)


def test_a_search_engine_that_is_gone_stops_the_evaluation_and_scores_nothing(
    request_for: Make, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from r1searcher.errors import RetrieverError
    from r1searcher.retrieval.engines.bm25 import EmbeddedIndex

    async def broken(*_: Any) -> Any:
        raise RetrieverError("the disk is gone")

    monkeypatch.setattr(EmbeddedIndex, "search", broken)
    request = request_for()
    with pytest.raises(R1Error, match="the disk is gone"):
        evaluate(request, QUIET)
    assert not (request.to / "report.json").exists()
    assert not (request.to / "predictions.jsonl").exists()


def test_a_model_server_that_fails_is_no_wrong_answer(request_for: Make, searcher: Any) -> None:
    answer = searcher.answer
    searcher.answer = lambda path, body: (500, "boom") if path.endswith("/completions") else answer(path, body)
    with pytest.raises(R1Error, match="status 500"):
        evaluate(request_for(), QUIET)


def test_a_server_without_token_ids_is_refused(request_for: Make, searcher: Any) -> None:
    def without(path: str, body: Any, answer: Any = searcher.answer) -> Any:
        status, value = answer(path, body)
        for choice in value.get("choices", ()):
            del choice["token_ids"]
        return status, value

    searcher.answer = without
    with pytest.raises(InputError, match="does not return token ids"):
        evaluate(request_for(), QUIET)


def test_samples_are_drawn_with_a_seed_each(request_for: Make, searcher: Any) -> None:
    figures = evaluate(request_for(samples=3), QUIET)["capitals"]
    assert (figures.n, figures.predictions) == (6, 18)
    assert {"pass@3", "mean@3"} <= set(figures.metrics)
    assert {call["temperature"] for call in searcher.calls} == {1.0}
    assert len({call["seed"] for call in searcher.calls}) == 18


def test_greedy_samples_are_refused(request_for: Make) -> None:
    with pytest.raises(InputError, match="would all be the same"):
        evaluate(request_for(samples=2, temperature=0.0), QUIET)


def test_several_data_sets_share_one_report(request_for: Make, questions: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(questions.read_text())
    reports = evaluate(request_for(datasets=[str(questions), str(other)]), QUIET)
    assert {name: figures.n for name, figures in reports.items()} == {"capitals": 6, "other": 6}


def test_a_judge_is_asked_once_for_each_answer(request_for: Make, serve: Any) -> None:
    judge = serve(lambda path, body: (200, {"choices": [{"message": {"content": " True."}}]}))
    request = request_for(judge=JudgeRequest(url=judge.url, model="j"))
    assert evaluate(request, QUIET)["capitals"].metrics["judge"].value == 1
    assert len(judge.calls) == 6
    evaluate(request, QUIET)
    assert len(judge.calls) == 6
    assert all(p.judge is True for p in read_predictions(request.to / "predictions.jsonl"))


def test_a_judge_that_fails_is_counted_and_asked_again(request_for: Make, serve: Any) -> None:
    judge = serve(lambda path, body: (200, {"choices": [{"message": {"content": "Well"}}]}))
    request = request_for(judge=JudgeRequest(url=judge.url, model="j"))
    figures = evaluate(request, QUIET)["capitals"]
    assert figures.judge_failed == 6
    assert "judge" not in figures.metrics
    judge.answer = lambda path, body: (200, {"choices": [{"message": {"content": "False"}}]})
    figures = evaluate(request, QUIET)["capitals"]
    assert figures.judge_failed == 0
    assert figures.metrics["judge"].value == 0


def test_models_are_found(tmp_path: Path) -> None:
    model = tmp_path / "run" / "stage1" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (tmp_path / "run" / "stage1" / "config.toml").write_text("[episode]\nmax_searches = 3\n")
    found = find_target(str(tmp_path / "run"), {})
    assert found.model == str(model)
    assert found.settings.episode.max_searches == 3
    assert find_target("Qwen/Qwen2.5-7B", {}).settings.episode.top_k == 5
    with pytest.raises(InputError, match="neither a Hugging Face folder"):
        find_target(str(tmp_path), {})
    with pytest.raises(InputError, match="there is no model"):
        find_target("./nowhere", {})


def test_one_question_is_answered_live(request_for: Make, searcher: Any, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = request_for().overrides
    run_ask(AskRequest(question="What is the capital of Nepal?", model=searcher.url, overrides=overrides))
    shown = capsys.readouterr()
    assert shown.out.strip() == "Kathmandu"
    assert "What is the capital of Nepal? <|end_of_query|>" in shown.err
    assert "Kathmandu is the capital of Nepal." in shown.err


def test_the_command_line_scores_as_json(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"question": "?", "answer": "Oslo", "prediction": "Oslo"}\n')
    command = [sys.executable, "-m", "r1searcher.cli", "score", str(file), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["em"] == {"value": 1.0, "low": 1.0, "high": 1.0}

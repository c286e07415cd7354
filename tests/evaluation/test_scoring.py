import json
import random
from pathlib import Path

import pytest

from r1searcher.errors import InputError
from r1searcher.evaluation import scoring
from r1searcher.evaluation.comparison import compare
from r1searcher.evaluation.intervals import interval, paired_difference
from r1searcher.evaluation.predictions import parse
from r1searcher.evaluation.scoring import report, score_file, score_prediction
from r1searcher.evaluation.tables import print_scores
from tests.shared_data import shared


@pytest.mark.parametrize(
    ("name", "n", "figures"),
    [
        (
            "bamboogle_qwen",
            125,
            {
                "cover_em": 0.528,
                "judge": 0.544,
                "em": 0.456,
                "f1": 0.577,
                "cover_em_contiguous": 0.488,
                "searches": 1.984,
            },
        ),
        (
            "hotpotqa_qwen",
            500,
            {
                "cover_em": 0.654,
                "judge": 0.750,
                "em": 0.580,
                "f1": 0.719,
                "cover_em_contiguous": 0.654,
                "searches": 2.11,
            },
        ),
    ],
)
def test_released_trajectories_give_the_papers_figures(name: str, n: int, figures: dict[str, float]) -> None:
    found = report(score_file(shared(f"data/r1-searcher/eval_results/{name}.jsonl")))
    assert found.n == n
    assert {metric: round(found.metrics[metric].value, 3) for metric in figures} == figures
    assert found.judge_failed == 0


def one(question: str, answer: str, gold: str = "Oslo", **more: object) -> scoring.Scored:
    row = {"question": question, "answer": gold, "prediction": answer, **more}
    return score_prediction(parse(json.dumps(row), "here", question))


def test_json_holds_each_metric_with_its_interval() -> None:
    figures = report([one("a", "Oslo"), one("b", "Bergen")]).as_json()
    assert figures["n"] == 2
    for metric in ("em", "f1", "cover_em", "cover_em_contiguous"):
        assert set(figures[metric]) == {"value", "low", "high"}
        assert figures[metric]["low"] <= figures[metric]["value"] <= figures[metric]["high"]
    assert "judge" not in figures


def test_a_judge_can_be_asked_about_any_file(tmp_path: Path, serve, capsys: pytest.CaptureFixture[str]) -> None:
    judge = serve(lambda path, body: (200, {"choices": [{"message": {"content": "False"}}]}))
    file = tmp_path / "p.jsonl"
    file.write_text('{"question": "?", "answer": "Oslo", "prediction": "Oslo"}\n')
    for _ in range(2):
        print_scores([file], True, judge.url, "j")
        assert json.loads(capsys.readouterr().out)["judge"]["value"] == 0
    assert len(judge.calls) == 1


def test_failed_verdicts_are_counted_and_count_in_no_direction() -> None:
    rows = [one("a", "Oslo", judge="True"), one("b", "Oslo", judge="failed"), one("c", "Bergen", judge="False")]
    found = report(rows)
    assert found.metrics["judge"].value == 0.5
    assert found.judge_failed == 1


def test_samples_of_a_question_count_as_one_question() -> None:
    rows = [one("a", x, id="a") for x in ("Oslo", "Bergen")] + [one("b", x, id="b") for x in ("Bergen", "Bergen")]
    found = report(rows)
    assert (found.n, found.predictions) == (2, 4)
    assert found.metrics["em"].value == 0.25
    assert found.metrics["pass@2"].value == 0.5
    assert found.metrics["mean@2"].value == 0.25


def test_the_same_question_under_two_ids_is_said() -> None:
    rows = [one("a", "Oslo", id="1"), one("a", "Oslo", id="2")]
    assert "more than once" in report(rows).notes[0]


def test_nothing_to_score_is_an_error_and_no_zero() -> None:
    with pytest.raises(InputError):
        report([])


def test_several_processes_give_the_same_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "p.jsonl"
    rows = [{"question": f"q{i}", "answer": "Oslo", "prediction": "Oslo" if i % 3 else "Bergen"} for i in range(4500)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    alone = score_file(file)
    monkeypatch.setattr(scoring, "LARGE", 0)
    assert score_file(file, processes=2) == alone


def test_an_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    draw = random.Random(0)
    held = 0
    for _ in range(200):
        found = interval([float(draw.random() < 0.3) for _ in range(120)])
        held += found.low <= 0.3 <= found.high
    assert 176 <= held <= 199  # 95 % of 200 is 190; binomial noise and the percentile method's bias stay inside


def test_an_interval_repeats_itself() -> None:
    values = [0.0, 1.0, 1.0, 0.5] * 20
    assert interval(values) == interval(values)


def test_a_real_difference_is_found_and_none_is_not() -> None:
    draw = random.Random(1)
    a = [float(draw.random() < 0.4) for _ in range(300)]
    better = [max(x, float(draw.random() < 0.3)) for x in a]
    shuffled = draw.sample(a, len(a))
    assert paired_difference(a, better).more_than_noise
    assert not paired_difference(a, a).more_than_noise
    assert not paired_difference(a, shuffled).more_than_noise


def test_comparison_pairs_questions_in_any_order_and_counts_the_others() -> None:
    a = [one("a", "Oslo"), one("b", "Bergen"), one("only a", "Oslo")]
    b = [one("b", "Oslo"), one("a", "Oslo"), one("only b", "Oslo"), one("also b", "Oslo")]
    found = compare(a, b)
    assert (found.n, found.only_a, found.only_b) == (2, 1, 2)
    assert found.differences["em"].value == 0.5
    assert (found.differences["em"].better, found.differences["em"].worse) == (1, 0)
    assert "judge" not in found.differences


def test_files_on_other_questions_cannot_be_compared() -> None:
    with pytest.raises(InputError, match="no question in common"):
        compare([one("a", "Oslo")], [one("b", "Oslo")])

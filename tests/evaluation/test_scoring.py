import json
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from r1searcher.errors import InputError
from r1searcher.evaluation import scoring
from r1searcher.evaluation.commands import ScoreRequest, print_comparison, print_scores
from r1searcher.evaluation.comparison import compare
from r1searcher.evaluation.judge import JudgeRequest
from r1searcher.evaluation.predictions import parse
from r1searcher.evaluation.scoring import Scoring, score_file
from r1searcher.report.intervals import interval, paired_difference
from r1searcher.report.scoring import Scored, score_prediction, summarize
from tests.shared_data import DATA, shared

RESULTS = "r1-searcher/eval_results"


def figures_of(file: Path, names: Iterable[str]) -> tuple[int, dict[str, float]]:
    found = summarize(score_file(file))
    assert found.judge_failed == 0
    return found.n, {metric: round(found.metrics[metric].value, 3) for metric in names}


@pytest.mark.parametrize(
    ("name", "n", "figures"),
    [
        (
            "bamboogle_qwen",
            24,
            {
                "em": 0.417,
                "f1": 0.566,
                "cover_em": 0.458,
                "cover_em_contiguous": 0.458,
                "judge": 0.542,
                "searches": 1.875,
                "official_em": 0.417,
                "official_f1": 0.549,
            },
        ),
        (
            "hotpotqa_qwen",
            41,
            {
                "em": 0.537,
                "f1": 0.689,
                "cover_em": 0.707,
                "cover_em_contiguous": 0.707,
                "judge": 0.780,
                "searches": 2.195,
                "official_em": 0.537,
                "official_f1": 0.690,
            },
        ),
    ],
)
def test_released_rows_give_the_figures_of_the_released_scorers(name: str, n: int, figures: dict[str, float]) -> None:
    """Expected: R1-Searcher's `metric_calc_rule.py` and HotpotQA's `hotpot_evaluate_v1.py`, run on these rows."""
    assert figures_of(DATA / RESULTS / f"{name}.jsonl", figures) == (n, figures)


@pytest.mark.shared
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
                "official_em": 0.456,
                "official_f1": 0.573,
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
                "official_em": 0.576,
                "official_f1": 0.713,
            },
        ),
    ],
)
def test_released_trajectories_give_the_papers_figures(name: str, n: int, figures: dict[str, float]) -> None:
    assert figures_of(shared(f"data/{RESULTS}/{name}.jsonl"), figures) == (n, figures)


def one(question: str, answer: str, gold: str = "Oslo", **more: object) -> Scored:
    row = {"question": question, "answer": gold, "prediction": answer, **more}
    return score_prediction(parse(json.dumps(row), "here", question))


def test_json_holds_each_metric_with_its_interval() -> None:
    figures = summarize([one("a", "Oslo"), one("b", "Bergen")]).as_json()
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
        print_scores(ScoreRequest(files=[file], as_json=True, judge=JudgeRequest(url=judge.url, model="j")))
        assert json.loads(capsys.readouterr().out)["judge"]["value"] == 0
    assert len(judge.calls) == 1


def test_failed_verdicts_are_counted_and_count_in_no_direction() -> None:
    rows = [one("a", "Oslo", judge="True"), one("b", "Oslo", judge="failed"), one("c", "Bergen", judge="False")]
    found = summarize(rows)
    assert found.metrics["judge"].value == 0.5
    assert found.judge_failed == 1


def test_samples_of_a_question_count_as_one_question() -> None:
    rows = [one("a", x, id="a") for x in ("Oslo", "Bergen")] + [one("b", x, id="b") for x in ("Bergen", "Bergen")]
    found = summarize(rows)
    assert (found.n, found.predictions) == (2, 4)
    assert found.metrics["em"].value == 0.25
    assert found.metrics["pass@2"].value == 0.5
    assert found.metrics["mean@2"].value == 0.25


def test_the_same_question_under_two_ids_is_said() -> None:
    rows = [one("a", "Oslo", id="1"), one("a", "Oslo", id="2")]
    assert "more than once" in summarize(rows).warnings[0]


def test_nothing_to_score_is_an_error_and_no_zero() -> None:
    with pytest.raises(InputError):
        summarize([])


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
    assert paired_difference(a, better).significant
    assert not paired_difference(a, a).significant
    assert not paired_difference(a, shuffled).significant


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


def write(file: Path, *rows: dict[str, object]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


RIGHT = {"question": "a", "answer": "Oslo", "prediction": "Oslo"}
WRONG = {"question": "a", "answer": "Oslo", "prediction": "Bergen"}


@pytest.mark.parametrize("as_json", [True, False])
def test_files_of_the_same_name_are_both_shown(tmp_path: Path, capsys, as_json: bool) -> None:
    a = write(tmp_path / "A" / "predictions.jsonl", RIGHT)
    b = write(tmp_path / "B" / "predictions.jsonl", WRONG)
    print_scores(ScoreRequest(files=[a, b], as_json=as_json))
    out = capsys.readouterr().out
    if as_json:
        rows = [json.loads(line) for line in out.splitlines()]
        assert [(row["file"], row["em"]["value"]) for row in rows] == [(str(a), 1.0), (str(b), 0.0)]
    else:
        [em] = [line for line in out.splitlines() if line.strip().startswith("EM, R1-Searcher")]
        assert em.split()[2::3] == ["1.000", "0.000"]


def test_a_file_of_several_datasets_is_scored_by_dataset(tmp_path: Path, capsys) -> None:
    rows = [
        {"question": "a", "gold_answers": ["u.s."], "prediction": "us", "dataset": "hotpotqa"},
        {"question": "b", "gold_answers": ["oslo"], "prediction": "in Oslo, Norway", "dataset": "popqa"},
    ]
    print_scores(ScoreRequest(files=[write(tmp_path / "p.jsonl", *rows)], as_json=True))
    hotpotqa, popqa = map(json.loads, capsys.readouterr().out.splitlines())
    assert (hotpotqa["dataset"], hotpotqa["em"]["value"], hotpotqa["official_em"]["value"]) == ("hotpotqa", 0, 1)
    assert (popqa["dataset"], popqa["em"]["value"], "official_em" in popqa) == ("popqa", 0, False)
    assert popqa["official_accuracy"]["value"] == 1  # capitalized, the gold answer is a substring
    assert "hotpot_evaluate_v1.py" in hotpotqa["official"][0]


def test_the_dataset_comes_from_the_option_the_row_or_the_name_of_the_file(tmp_path: Path) -> None:
    row = {"question": "a", "gold_answers": ["u.s."], "prediction": "us"}
    plain, named = write(tmp_path / "p.jsonl", row), write(tmp_path / "musique_500.jsonl", row)
    of_row = write(tmp_path / "r.jsonl", {**row, "data_source": "nq"})
    assert [summarize(score_file(file)).official for file in (plain, of_row)] == [
        [],
        ["dpr/data/qa_validation.py of facebookresearch/DPR (NQ-open)"],
    ]
    assert summarize(score_file(named)).official == ["metrics/answer.py of StonyBrookNLP/musique (MuSiQue)"]
    assert summarize(score_file(plain, scoring=Scoring(dataset="hotpotqa"))).metrics["official_em"].value == 1


def test_compare_shows_official_metrics_and_names_them(tmp_path: Path, capsys) -> None:
    row = {"question": "a", "gold_answers": ["u.s."], "prediction": "us", "dataset": "hotpotqa"}
    a, b = write(tmp_path / "a.jsonl", {**row, "prediction": "x"}), write(tmp_path / "b.jsonl", row)
    print_comparison(a, b, True)
    found = json.loads(capsys.readouterr().out)
    assert (found["em"]["value"], found["official_em"]["value"]) == (0, 1)
    print_comparison(a, b, False)
    out = capsys.readouterr().out
    assert "official metrics: hotpot_evaluate_v1.py of hotpotqa/hotpot (HotpotQA)" in out
    [line] = [line for line in out.splitlines() if "EM, official" in line]
    assert line.split() == [
        "EM,",
        "official",
        "0.000",
        "1.000",
        "+1.000",
        "[+1.000,",
        "+1.000]",
        "0.000",
        "1",
        "0",
        "yes",
    ]


def test_text_from_outside_reaches_the_terminal_visible(tmp_path: Path, capsys) -> None:
    a = write(tmp_path / "\x1b[2J[bold]a[", {**RIGHT, "dataset": "\x9b[/]d"}, {**RIGHT, "question": "b"})
    print_scores(ScoreRequest(files=[a]))
    print_comparison(a, a, False)
    print_scores(ScoreRequest(files=[a], as_json=True))
    out = capsys.readouterr().out
    assert not {"\x1b", "\x9b"} & set(out)
    assert "[bold]a[: \\x9b[/]d" in out


def test_several_processes_find_the_damaged_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "p.jsonl", *[RIGHT] * 3000)
    with file.open("ab") as out:
        out.write(b"\n{\n")
    monkeypatch.setattr(scoring, "LARGE", 0)
    with pytest.raises(InputError, match=r"p\.jsonl:3002 is not JSON"):
        score_file(file, processes=2)
    file.write_bytes(b"\xff\n")
    with pytest.raises(InputError, match=r"p\.jsonl:1 is not UTF-8"):
        score_file(file, processes=2)

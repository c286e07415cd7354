"""The report page in a real headless browser."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from r1searcher.errors import InputError
from r1searcher.evaluation.predictions import from_text
from r1searcher.evaluation.reports import records_of
from r1searcher.report.contents import Records, report_of, side_by_side
from r1searcher.report.packed import unpack
from r1searcher.report.page import render_page
from r1searcher.runs.records import to_row
from tests.report.browser import CHROMIUM, DRIVER, Browser, headless
from tests.report.pages import trajectories_in

needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium with its driver: apt install chromium chromium-driver"
)

HOSTILE = (
    "</script><script>window.owned=1</script><img src=x onerror='window.owned=2'><svg onload='window.owned=3'>"
    "<!--<script>{{data}} {{script}} \u2028 ' \" ` ${window.owned=4} <meta http-equiv=refresh content='0;url=http://x.invalid'>"
)
SEARCH = (
    "I look. <|begin_of_query|> capital {0}<|end_of_query|>\n\n"
    "<|begin_of_documents|>\n(1)Title: Norway Text: OSLO is it. {0}\n<|end_of_documents|>\n\n"
)


def page_of(rows: list[dict[str, Any]], model: str = "a model") -> str:
    manifest = {"model": model, "note": HOSTILE}
    return render_page(report_of(records_of(manifest, [json.loads(json.dumps(row)) for row in rows])))


def rows() -> list[dict[str, Any]]:
    texts = {
        "What is right?": SEARCH.format("") + "So Oslo. </think> <answer> Oslo </answer>",
        "What is wrong?": SEARCH.format("") * 2 + "So Bergen. </think> <answer> Bergen </answer>",
        "What is covered?": "So Oslo. </think> <answer> Oslo in Norway </answer>",
        "What is cut?": "So",
        f"What is {HOSTILE}?": SEARCH.format(HOSTILE) + f"{HOSTILE} </think> <answer> {HOSTILE} </answer>",
    }
    parts = {"f1": 0.5, HOSTILE: 1.0}
    return [
        to_row(
            from_text(question, ("Oslo", HOSTILE[:20]), text),
            dataset="capitals",
            id=str(place),
            index=place,
            sample=0,
            parts=parts,
        )
        for place, (question, text) in enumerate(texts.items())
    ]


def test_hostile_text_adds_no_element_to_the_page() -> None:
    page = page_of(rows(), model=HOSTILE).lower()
    assert page.count("<script") == page.count("</script") == 3
    assert "onerror" not in page.partition("<script")[0].replace("&lt;img src=x onerror", "")
    assert "<img" not in page
    assert "<!--" not in page


def test_the_page_names_official_metrics_beside_r1_searchers() -> None:
    page = page_of([dict(row, dataset="hotpotqa") for row in rows()])
    assert "<td>EM, R1-Searcher</td>" in page
    assert "<td>EM, official</td>" in page
    assert "official metrics: hotpot_evaluate_v1.py of hotpotqa/hotpot (HotpotQA)" in page
    assert page_of(rows()).count("official") == 0


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("page")
    file = folder / "report.html"
    file.write_text(page_of(rows(), model=HOSTILE), encoding="utf-8")
    with headless(folder / "profile") as running:
        running.open(file)
        yield running


def choose(browser: Browser, filter_: str, value: str) -> list[str]:
    """Set one filter; the questions then shown."""
    return browser.run(
        """
        const select = document.getElementById(arguments[0]);
        select.value = arguments[1];
        select.dispatchEvent(new Event(select.tagName === "SELECT" ? "change" : "input"));
        return [...document.querySelectorAll("#list li:not([hidden]) button")].map((b) => b.childNodes[1].textContent);
        """,
        filter_,
        value,
    )


def read(browser: Browser, number: int) -> str:
    browser.run(f"document.querySelectorAll('#list button')[{number}].click()")
    browser.wait(f"document.getElementById('reading').dataset.row === '{number}'")
    return browser.run("return document.getElementById('reading').innerText")


@needs_browser
def test_the_page_runs_from_a_file_and_lists_every_trajectory(browser: Browser) -> None:
    assert browser.run("return location.protocol") == "file:"
    assert len(choose(browser, "right", "")) == 5
    assert browser.run("return document.getElementById('count').textContent") == "5 of 5 trajectories"
    assert browser.run("return document.querySelectorAll('figure svg').length") == 2


@needs_browser
def test_text_it_shows_cannot_script_it(browser: Browser) -> None:
    for number in range(5):
        read(browser, number)
    assert browser.run("return [typeof window.owned, document.querySelectorAll('img, iframe, object').length]") == [
        "undefined",
        0,
    ]
    assert HOSTILE.replace("\u2028", "") in read(browser, 4).replace("\u2028", "")
    assert browser.run("return location.protocol") == "file:"


@needs_browser
def test_a_script_that_got_in_would_be_refused(browser: Browser) -> None:
    browser.run(
        "const s = document.createElement('script'); s.textContent = 'window.owned = 5'; document.body.append(s)"
    )
    assert browser.run("return typeof window.owned") == "undefined"


@needs_browser
def test_nothing_is_loaded_from_outside(browser: Browser) -> None:
    loaded = browser.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert loaded == []


@needs_browser
@pytest.mark.parametrize(
    ("filter_", "value", "shown"),
    [
        ("right", "right", ["What is right?"]),
        ("right", "covered", ["What is covered?"]),
        ("searches", "2", ["What is wrong?"]),
        ("stop", "eos_without_answer", ["What is cut?"]),
        ("words", "WRONG", ["What is wrong?"]),
        ("broken", "unfinished", ["What is cut?"]),
    ],
)
def test_filters(browser: Browser, filter_: str, value: str, shown: list[str]) -> None:
    assert choose(browser, filter_, value) == shown
    assert len(choose(browser, filter_, "")) == 5


@needs_browser
def test_a_trajectory_shows_authors_golds_and_reward(browser: Browser) -> None:
    text = read(browser, 0)
    assert "the model wrote: trained" in text
    assert "found by the search: not trained" in text
    assert "reward f1 0.5" in text
    marked = browser.run("return [...document.querySelectorAll('.environment mark')].map((m) => m.textContent)")
    assert marked == ["OSLO"]
    assert "format broken: unfinished" in read(browser, 3)


@needs_browser
def test_the_page_of_a_run_has_curves_and_its_steps_as_a_filter(browser: Browser, tmp_path: Path) -> None:
    metrics = [{"step": step, "reward": step / 4, f"reward/{HOSTILE}": 1.0} for step in (1, 2)]
    trajectories = [{**row, "step": step} for step in (1, 2) for row in rows()]
    records = Records(
        title=HOSTILE, manifest={"note": HOSTILE}, trajectories=trajectories, grouped_by="step", metrics=metrics
    )
    file = tmp_path / "run.html"
    file.write_text(render_page(report_of(records)), encoding="utf-8")
    browser.open(file)
    assert len(choose(browser, "group", "step 2")) == 5
    assert browser.run("return document.querySelectorAll('svg[aria-label=\"reward per step\"]').length") == 1
    assert browser.run("return [typeof window.owned, document.querySelectorAll('img, iframe, object').length]") == [
        "undefined",
        0,
    ]
    assert f"{HOSTILE} part".replace("\u2028", "") in browser.run(
        "return [...document.querySelectorAll('th')].map((cell) => cell.textContent).join()"
    ).replace("\u2028", "")


def run_records(name: str, *rewards: float) -> Records:
    """A run of two steps, in each of which one question has samples with these rewards."""
    text = "So {0}. </think> <answer> {0} </answer>"
    trajectories = [
        {"id": "q", "step": step, "reward": reward, **to_row(from_text("Where?", ("Oslo",), text.format(f"{name}{n}")))}
        for step in (1, 2)
        for n, reward in enumerate(rewards)
    ]
    metrics = [{"step": step, "reward": step / 4, "kl": step / 1e3, "format/long_answer": 0.0} for step in (1, 2)]
    return Records(
        title=name, manifest={"name": name}, trajectories=trajectories, grouped_by="step", metrics=metrics, notes=["hm"]
    )


def test_every_number_of_the_metrics_has_a_curve_and_zeros_are_named() -> None:
    page = render_page(report_of(run_records("a", 1.0)))
    assert 'aria-label="kl per step"' in page
    assert "kl: 0.001 to 0.002" in page
    assert "always 0: long_answer" in page
    assert "<li>hm</li>" in page


@needs_browser
def test_the_samples_of_a_question_are_side_by_side_by_their_reward(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "run.html"
    file.write_text(render_page(report_of(run_records("Lima", 0.5, 1.0, 0.0))), encoding="utf-8")
    browser.open(file)
    assert "3 samples:" in read(browser, 4)
    browser.run("document.getElementById('side').click()")
    browser.wait("document.querySelectorAll('.columns > section').length === 3")
    columns = browser.run("return [...document.querySelectorAll('.columns > section')].map((c) => c.innerText)")
    assert [text.split("answer: ")[1].split()[0] for text in columns] == ["Lima1", "Lima0", "Lima2"]
    assert all("step 2" in text for text in columns)
    browser.run("document.querySelectorAll('.samples button')[2].click()")
    browser.wait("document.getElementById('reading').dataset.row === '5'")


@needs_browser
def test_two_runs_are_on_one_page_with_the_samples_of_both_in_a_group(browser: Browser, tmp_path: Path) -> None:
    reports = {name: report_of(run_records(name, 1.0)) for name in ("a", HOSTILE)}
    file = tmp_path / "both.html"
    file.write_text(render_page(side_by_side(reports)), encoding="utf-8")
    browser.open(file)
    assert len(choose(browser, "group", "a: step 1")) == 1
    assert len(choose(browser, "group", f"{HOSTILE}: step 1")) == 1
    choose(browser, "group", "")
    assert "2 samples:" in read(browser, 0)
    lines = browser.run("return document.querySelectorAll('svg[aria-label=\"reward per step\"] polyline').length")
    assert lines == 2
    assert browser.run("return [typeof window.owned, document.querySelectorAll('img, iframe, object').length]") == [
        "undefined",
        0,
    ]


def test_a_run_and_an_evaluation_are_not_put_side_by_side() -> None:
    with pytest.raises(InputError, match="folders of one kind"):
        side_by_side({"a": report_of(run_records("a", 1.0)), "b": report_of(records_of({"model": "m"}, rows()))})


PASSAGE = "Oslo is the capital of Norway, and has been since the country became independent."


@needs_browser
def test_a_passage_of_many_trajectories_is_stored_once_and_shown_in_each(browser: Browser, tmp_path: Path) -> None:
    texts = [f"{SEARCH.format(PASSAGE)}So {number}.\n\n" for number in range(100)]
    page = page_of([to_row(from_text("Where?", ("Oslo",), text), dataset="d", id=n) for n, text in enumerate(texts)])
    read_back = ["".join(text for _, text, _ in one["segments"][1:]) for one in trajectories_in(page)]
    assert read_back == texts
    file = tmp_path / "shared.html"
    file.write_text(page, encoding="utf-8")
    browser.open(file)
    assert PASSAGE in read(browser, 99)
    assert "So 99." in read(browser, 99)
    blocks = [unpack(block) for block in re.findall(r'<script type="text/plain"[^>]*>(.*?)</script>', page)]
    assert json.dumps(blocks).count(PASSAGE) == 2  # in the query and in the passage


@needs_browser
def test_a_thousand_trajectories_are_all_there(browser: Browser, tmp_path: Path) -> None:
    many = [dict(row, index=place, id=str(place)) for place, row in enumerate(rows() * 200)]
    file = tmp_path / "many.html"
    file.write_text(page_of(many), encoding="utf-8")
    browser.open(file)
    listed = "return document.querySelectorAll('#list li:not(.more) button').length"
    assert browser.run("return document.getElementById('count').textContent") == "1000 of 1000 trajectories"
    assert browser.run(listed) == 500
    assert browser.run("return document.querySelector('#list .more').textContent") == "500 more"
    browser.run("document.querySelector('#list .more button').click()")
    assert browser.run(listed) == 1000
    assert browser.run("return document.querySelector('#list .more')") is None
    assert browser.run("return document.documentElement.dataset.ready !== undefined")

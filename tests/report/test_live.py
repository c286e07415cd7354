"""The live view and the curves, drawn from files alone."""

from pathlib import Path
from typing import Any

from rich.console import Group
from rich.padding import Padding
from rich.progress_bar import ProgressBar

from r1searcher.common import terminal
from r1searcher.common.files import append_row
from r1searcher.corpora.passage import Passage
from r1searcher.episodes.trajectory import Author, Search, Segment, StopReason, Trajectory
from r1searcher.report.live import RunView, trajectory_text
from r1searcher.report.plots import StageCurve, draw_curves, save_curves, sparkline
from r1searcher.report.tables import step_cells
from r1searcher.retrieval.base import Hit
from r1searcher.rewards.measures import F1, RETRIEVAL, REWARD, SEARCHES, View, shown_in
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import add_heartbeat, to_row

ROW = {
    "reward": 0.5,
    "reward/retrieval": 0.25,
    "reward/format": 0.25,
    "retrieval": 0.5,
    "format": 0.5,
    "f1": 0.125,
    "searches": 0.75,
    "new_tokens": 20.0,
    "rollout/num_samples": 8,
    "timing/generation": 4.0,
    "timing/step_total": 12.0,
}
HOSTILE = Trajectory(
    "Which [bold]river[/bold]?",
    ("Arden",),
    (
        Segment(Author.PROMPT, "Q", (1,)),
        Segment(Author.MODEL, "[red]not markup[/red] \x1b[2J</answer>", (2,)),
        Segment(Author.ENVIRONMENT, "[/nothing]\x1b]0;title\x07", (3,)),
    ),
    (Search("q", (Hit(Passage("1", "T", "x"), 1.0),), 1, 0.1),),
    StopReason.ANSWERED,
    "r1-searcher",
)


def filled(folder: Path, steps: int) -> RunFolder:
    run = RunFolder(folder)
    for step in range(1, steps + 1):
        append_row(run.metrics, {"step": step, **ROW})
        append_row(run.trajectories(step) / "a.jsonl", to_row(HOSTILE, reward=0.5))
    return run


def test_plain_lines_say_each_step_once_with_its_figures_and_an_episode(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    console = terminal.console(record=True, width=120, force_terminal=False)
    with RunView(run, "stage 1", 4, 8, console) as view:
        filled(tmp_path, 2)
        view.refresh()
        view.refresh()
        for writer in ("a", "b"):
            add_heartbeat(run, writer, f"{writer}: waiting for the search engine")
    text = console.export_text()
    assert text.count("step 1/4") == text.count("step 2/4") == 1
    assert "retrieval rate 0.500" in text
    assert "about 0 min left" in text
    assert text.count("a: waiting for the search engine") == text.count("b: waiting for the search engine") == 1
    assert "[red]not markup[/red]" in text


def test_the_panel_shows_rates_parts_speed_and_the_latest_episode(tmp_path: Path) -> None:
    run = filled(tmp_path, 3)
    console = terminal.console(record=True, width=160, force_terminal=True)
    with RunView(run, "stage 1", 4, 8, console) as view:
        console.print(view._panel())
    text = console.export_text()
    assert "retrieval part" in text
    assert "40" in text  # 20 tokens x 8 samples / 4 s
    assert "gold: Arden" in text


def test_the_view_explains_its_numbers_and_says_what_the_engine_does(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)

    def shown() -> str:
        console = terminal.console(record=True, width=2000, force_terminal=True)
        console.print(view._panel())
        return console.export_text()

    view = RunView(run, "stage 1", 2, 2, terminal.console(record=True, force_terminal=True))
    for m in (REWARD, F1, RETRIEVAL, SEARCHES):
        assert f"{m.heading}: {m.meaning.split(';')[0]};" in shown()
    assert "\nstarting vLLM and the trainer" in shown(), "on a line of its own"
    append_row(run.trajectories(1) / "a.jsonl", to_row(HOSTILE))
    assert "sampling episodes: 1 of 2" in shown()
    append_row(run.trajectories(1) / "a.jsonl", to_row(HOSTILE))
    assert "training on the 2 episodes" in shown()
    append_row(run.metrics, {"step": 1, **ROW})
    assert "tokens: " in shown()
    assert "staleness" not in shown(), "no step reports it"
    assert "sampling episodes" in shown()
    append_row(run.metrics, {"step": 2, **ROW})
    assert "saving the model" in shown()
    plain = terminal.console(record=True, width=120, force_terminal=False)
    with RunView(run, "stage 1", 2, 2, plain):
        pass
    assert plain.export_text().count("means over the episodes of a step: reward: sum of the reward parts; F1:") == 1


def test_the_table_has_the_measures_that_were_logged() -> None:
    """The staleness of asynchronous rollouts; a synchronous run has none."""
    headings, _ = step_cells([{"step": 1, **ROW}])
    ahead, [row] = step_cells([{"step": 1, **ROW, "staleness": 1.25, "staleness_max": 2.0}])
    assert [name for name in ahead if name not in headings] == ["staleness", "largest staleness"]
    assert dict(zip(ahead, row, strict=True))["staleness"] == "1.250"


def test_the_panel_counts_only_the_episodes_added_since_it_last_looked(tmp_path: Path) -> None:
    run = filled(tmp_path, 1)
    file = run.trajectories(2) / "worker.jsonl"
    append_row(file, to_row(HOSTILE))
    append_row(file, to_row(HOSTILE))
    view = RunView(run, "stage 1", 4, 8, terminal.console(record=True, force_terminal=True))
    assert _progress(view) == 1 + 2 / 8 / 2  # the other half of a step is training
    size = file.stat().st_size
    with file.open("r+b") as handle:
        handle.write(b" " * size)  # read again, there would be no line here
    append_row(file, to_row(HOSTILE))
    assert _progress(view) == 1 + 3 / 8 / 2


def _progress(view: RunView) -> float:
    panel = view._panel()
    assert isinstance(panel, Group)
    bars = [part.renderable for part in panel.renderables if isinstance(part, Padding)]
    [bar] = [bar for bar in bars if isinstance(bar, ProgressBar)]
    return bar.completed


def test_what_a_model_or_a_passage_wrote_can_not_steer_the_terminal() -> None:
    text = trajectory_text(to_row(HOSTILE)).plain
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]not markup[/red]" in text


SFT = StageCurve(name="SFT", held_out={"f1": 0.25, "searches": 0.5, "reward": None})
STAGE1 = StageCurve(name="stage 1", rows=[{"step": 1, **ROW}, {"step": 2, **ROW, "f1": None}], held_out={"f1": 0.75})
STAGE2 = StageCurve(name="stage 2", rows=[{"step": 1, "f1": 0.5, "searches": 1.5}])


def drawn(axes: Any, marker: str) -> dict[str, list[tuple[float, float]]]:
    """The points of a panel by their color's measure: `.` those of steps, `D` the held-out ones."""
    names = {f"C{number}": m.name for number, m in enumerate(shown_in(View.CURVE))}
    points: dict[str, list[tuple[float, float]]] = {}
    for line in axes.get_lines():
        if line.get_marker() == marker:
            finite = [(x, y) for x, y in zip(*line.get_data(), strict=True) if y == y]
            points.setdefault(names[line.get_color()], []).extend(finite)
    return {name: found for name, found in points.items() if found}


def test_counts_have_a_panel_of_their_own_and_held_out_results_are_marked_after_each_stage() -> None:
    figure = draw_curves({"": [SFT, STAGE1, STAGE2]}, "title")
    rates, counts = figure.axes
    assert set(drawn(rates, ".")) == {"reward", "f1", "format", "retrieval"}
    assert drawn(counts, ".") == {"searches": [(1, 0.75), (2, 0.75), (3, 1.5)]}
    assert drawn(rates, "D") == {"f1": [(0.4, 0.25), (2.4, 0.75)]}
    assert drawn(counts, "D") == {"searches": [(0.4, 0.5)]}
    assert counts.get_ylabel() == "searches"
    [legend] = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert sorted(labels) == ["F1", "format rate", "held out", "retrieval rate", "reward", "searches"]


def test_a_contrast_run_is_next_to_the_other_chain_on_the_same_axis() -> None:
    figure = draw_curves({"both": [SFT, STAGE1, STAGE2], "alone": [STAGE2]}, "title")
    rates, rates_alone, _, counts_alone = figure.axes
    assert [axes.get_title() for axes in (rates, rates_alone)] == ["both", "alone"]
    assert rates.get_ylim() == rates_alone.get_ylim()
    assert drawn(rates_alone, ".") == {"f1": [(1, 0.5)]}
    assert drawn(counts_alone, ".") == {"searches": [(1, 1.5)]}


def test_curves_are_a_picture_file_also_of_a_stage_without_steps(tmp_path: Path) -> None:
    for name, stage in (("curve", STAGE1), ("nothing", StageCurve(name="stage 1"))):
        file = tmp_path / "plots" / f"{name}.png"
        save_curves({"": [stage]}, file, "t")
        assert file.read_bytes().startswith(b"\x89PNG")
        assert file.stat().st_size > 5_000


def test_a_sparkline_rises_with_its_values() -> None:
    line = sparkline([0.0, 0.2, 0.4, 0.9, 1.0])
    assert list(line) == sorted(line)
    assert line[0] == "▁"
    assert line[-1] == "█"

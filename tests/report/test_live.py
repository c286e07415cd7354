"""The live view and the curves, drawn from files alone."""

from pathlib import Path

from rich.console import Group
from rich.progress_bar import ProgressBar

from r1searcher.common import terminal
from r1searcher.common.files import append_row
from r1searcher.corpora.passage import Passage
from r1searcher.episodes.trajectory import Author, Search, Segment, StopReason, Trajectory
from r1searcher.report.live import RunView, trajectory_text
from r1searcher.report.plots import save_curves, sparkline
from r1searcher.retrieval.base import Hit
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
    [bar] = [part for part in panel.renderables if isinstance(part, ProgressBar)]
    return bar.completed


def test_what_a_model_or_a_passage_wrote_can_not_steer_the_terminal() -> None:
    text = trajectory_text(to_row(HOSTILE)).plain
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]not markup[/red]" in text


def test_curves_are_a_picture_file(tmp_path: Path) -> None:
    file = tmp_path / "plots" / "curve.png"
    save_curves({"stage 1": [{"step": 1, **ROW}, {"step": 2, **ROW}], "stage 2": [{"step": 1, "f1": 0.5}]}, file, "t")
    assert file.read_bytes().startswith(b"\x89PNG")
    assert file.stat().st_size > 10_000


def test_a_sparkline_rises_with_its_values() -> None:
    line = sparkline([0.0, 0.2, 0.4, 0.9, 1.0])
    assert list(line) == sorted(line)
    assert line[0] == "▁"
    assert line[-1] == "█"

"""An algorithm and a watch rule of another package, as in CONTRIBUTING.md. Does not need training packages."""

import tomllib
from pathlib import Path

from tests import extension


def installed(folder: Path, heading: str, name: str) -> Path:
    blocks = extension.blocks(heading)
    entry_points = tomllib.loads(blocks[f"{name}.toml"])["project"]["entry-points"]
    return extension.install(folder, {name: blocks[f"{name}.py"]}, entry_points)


FLAGS = """
import sys
from pathlib import Path
from r1searcher.config.settings import load
from r1searcher.engine.openrlhf.flags import EngineRun, argv, rl_flags
from r1searcher.engine.topology import topology_of
from r1searcher.errors import R1Error
from r1searcher.runs.folder import RunFolder
overrides = {"rl.algorithm": sys.argv[1], "rl.samples_per_question": int(sys.argv[2]), "rl.batch_size": 64}
settings = load("stage1", overrides={**overrides, "engine.device": "cpu"})
try:
    run = EngineRun(settings=settings, run=RunFolder(Path("run")), model=Path("m"), topology=topology_of(settings))
    print(" ".join(argv(rl_flags(run))))
except R1Error as error:
    print(error)
"""


def flags(where: Path, algorithm: str, samples: int) -> str:
    return extension.finished(extension.python(FLAGS, where, [algorithm, samples]))


def test_an_algorithm_is_a_value_of_the_setting(tmp_path: Path) -> None:
    where = installed(tmp_path, "Add an algorithm", "my_algorithms")
    argv = flags(where, "clip_higher", 4)
    assert "--algo.advantage.estimator group_norm" in argv
    assert "--actor.eps_clip_low_high 0.2 0.28" in argv
    assert "compares samples of a question and needs at least 2" in flags(where, "clip_higher", 1)
    assert "did you mean 'clip_higher'?" in flags(where, "clip_hihger", 4)


def test_an_entry_point_that_is_not_an_algorithm_is_one_sentence(tmp_path: Path) -> None:
    where = extension.install(tmp_path, {"mine": "GRPO = 'grpo'\n"}, {"r1searcher.algorithms": {"mine": "mine:GRPO"}})
    said = "the algorithm 'mine' of the package stranger must be of type Algorithm, and mine:GRPO is of type str"
    assert said in flags(where, "mine", 4)


CHECK = """
from r1searcher.checks.base import StageInputs
from r1searcher.checks.runner import CHECKS
from r1searcher.config.settings import Settings
from r1searcher.errors import R1Error
try:
    CHECKS["watch-rules"].run(StageInputs("stage1", Settings()))
except R1Error as error:
    print(error)
"""


def test_a_watch_rule_that_cannot_be_used_is_found_before_a_run(tmp_path: Path) -> None:
    groups = {"r1searcher.watch_rules": {"mine": "mine:rule"}}
    not_callable = extension.install(tmp_path / "a", {"mine": "rule = 5\n"}, groups)
    said = "the watch rule 'mine' of the package stranger must be of type Callable, and mine:rule is of type int"
    assert said in extension.python(CHECK, not_callable).stdout
    broken = extension.install(tmp_path / "b", {"mine": "import no_such_module\n"}, groups)
    assert "the watch rule 'mine' of the package stranger cannot be imported" in extension.python(CHECK, broken).stdout
    assert extension.python(CHECK, installed(tmp_path / "c", "Add a watch rule", "my_rules")).stdout == ""


STEPS = """
import tempfile
from pathlib import Path
from r1searcher.config.settings import Settings
from r1searcher.errors import RunStopped
from r1searcher.runs.folder import RunFolder
from r1searcher.watch.monitor import StepMonitor
monitor = StepMonitor(RunFolder(Path(tempfile.mkdtemp())), Settings())
try:
    for step, reward in enumerate((0.5, 0.6, 0.05, 0.6), start=1):
        monitor.step(step, {"vllm_kl": 0.0, "reward": reward})
except RunStopped as stopped:
    print(stopped)
"""


def test_a_watch_rule_is_asked_after_each_step(tmp_path: Path) -> None:
    where = installed(tmp_path, "Add a watch rule", "my_rules")
    done = extension.python(STEPS, where)
    assert done.stdout == "step 3: the reward fell from 0.60 to 0.05\n", done.stderr

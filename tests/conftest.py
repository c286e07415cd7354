"""Which tests run here, and the signals that they start from."""

import os
import signal
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.shared_data import SHARED_VARIABLE

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test needs the hub, and none waits for it
if "PYTEST_XDIST_WORKER" in os.environ:  # threads of torch that share a core with another process wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says how busy the machine is.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_configure() -> None:
    """Let Ctrl-C reach what tests start.

    A shell ignores SIGINT in what it runs in the background, and every process started from there ignores it too.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests of larger data where no folder with it is named."""
    if os.environ.get(SHARED_VARIABLE):
        return
    left_out = [item for item in items if item.get_closest_marker("shared")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("shared")]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several processes (`-n 2`), the tests of a folder run in one: they share servers and trained models."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFolder(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if file.count("/") == 1 else "/".join(file.split("/")[:2])

    return ByFolder(config, log)

"""What every process of the engine does before it imports OpenRLHF or vLLM.

Reached by official doors: `main` calls it in the driver, Ray in its workers (`worker_process_setup_hook`).
"""

from r1searcher.engine import cpu, data, hooks, watch


def setup() -> None:
    cpu.install_where_asked()
    watch.install_where_asked()
    hooks.install(data.PATCHES)

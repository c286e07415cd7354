"""What every process of the engine does before it imports OpenRLHF or vLLM.

Reached by official doors: `main` calls it in the driver, Ray in its workers (`worker_process_setup_hook`).
"""

from r1searcher.engine import cpu, data, import_patches, watch


def setup() -> None:
    cpu.install_if_enabled()
    watch.install_if_enabled()
    import_patches.install(data.PATCHES)

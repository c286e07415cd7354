import pytest

from tests.engine.toy import World, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world whose model was warmed up to search now and then: its run is "sft"."""
    made = make_world(tmp_path_factory.mktemp("world"))
    made.run("sft", str(made.settings), "--name", "sft")
    return made

"""Other projects' clients at `r1s serve`: the requests they send and the keys they read, restated from their code.

Search-R1 search_r1/llm_agent/generation.py; SkyRL skyrl-gym/skyrl_gym/tools/search.py; ASearcher tools/search_utils.py
and agent/asearcher.py; R1-Searcher OpenRLHF-RAG/openrlhf/trainer/ppo_utils/experience_maker.py.
"""

import re
from pathlib import Path

import pytest

from r1searcher.corpora.passage import Passage
from r1searcher.retrieval.indexing.bm25 import build
from tests.retrieval.serving import post

PASSAGES = [
    Passage("7", "Oslo", "Oslo is the capital of Norway."),
    Passage("wiki_8", "Rome", "Rome is the capital\nof Italy."),
    Passage("20", "Norway", "Norway has mountains."),
    Passage("3", "Norway", "Norway lies in the north."),
    Passage("https://example.org/Lima_(city)", "Lima", "Lima is in Peru."),
    Passage("a/b c", 'A "100%" title/ß', "Odd signs everywhere."),
]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clients") / "ix"
    build(PASSAGES, path)
    return path


def test_search_r1s_trainer(address: str) -> None:
    """One request per turn for all trajectories; a model's query may be empty, or as long as the turn."""
    queries = ["capital of Norway", "", " \n", "norway " * 3_000, "nothing of the kind"]
    result = post(f"{address}/retrieve", {"queries": queries, "topk": 2, "return_scores": True})["result"]
    shown = [[hit["document"]["contents"].split("\n") for hit in hits] for hits in result]
    assert [len(hits) for hits in shown] == [2, 0, 0, 2, 0]
    assert shown[0][0] == ['"Oslo"', "Oslo is the capital of Norway."]
    assert all(isinstance(hit["score"], float) for hits in result for hit in hits)


@pytest.mark.parametrize(
    "loose",
    [
        {"topk": 0},
        {"topk": None},
        {"topk": "3"},
        {"topk": 3.0},
        {"topk": 3, "return_scores": 0},
        {"topk": 3, "return_scores": "false"},
        {"unknown": [1]},
    ],
)
def test_types_are_as_loose_as_search_r1s_server_takes_them(address: str, loose: dict[str, object]) -> None:
    exact = post(f"{address}/retrieve", {"queries": ["capital"], "topk": 3, "return_scores": False})
    assert post(f"{address}/retrieve", {"queries": ["capital"], **loose}) == exact


@pytest.mark.parametrize("true", [1, "true", "True", 1.0])
def test_scores_are_given_for_whatever_means_true(address: str, true: object) -> None:
    assert "score" in post(f"{address}/retrieve", {"queries": ["capital"], "return_scores": true})["result"][0][0]


def test_skyrls_environment(address: str) -> None:
    """One query per request, in `query`; the answer is a list of one list."""
    answer = post(f"{address}/retrieve", {"query": "capital of Norway", "topk": 1, "return_scores": True})
    (hits,) = answer["result"]
    assert [hit["document"]["contents"] for hit in hits] == ['"Oslo"\nOslo is the capital of Norway.']
    assert post(f"{address}/retrieve", {"query": "", "topk": 1, "return_scores": True}) == {"result": [[]]}


def test_asearchers_agent_searches_and_then_reads_the_page(address: str) -> None:
    """It reads `contents` and `url` of each document, and posts the URL that the model chose."""
    asked = {"queries": ["norway mountains"], "topk": 5, "return_scores": False}
    (hits,) = post(f"{address}/retrieve", asked)["result"]
    documents, urls = [hit["contents"] for hit in hits], [hit["url"] for hit in hits]
    assert documents[0] == '"Norway"\nNorway has mountains.'
    (page,) = post(f"{address}/access", {"urls": urls[:1]})["result"]
    assert page["contents"] == '"Norway"\nNorway lies in the north.\nNorway has mountains.', "by their ids"


def test_every_document_has_a_url_that_leads_to_its_page(address: str) -> None:
    for passage in PASSAGES:
        (hits,) = post(f"{address}/retrieve", {"queries": [passage.text], "topk": 1})["result"]
        url = hits[0]["url"]
        assert not re.search(r"\s", url)
        (page,) = post(f"{address}/access", {"urls": [url]})["result"]
        assert passage.text in page["contents"], url


def test_a_page_that_is_not_there_is_null(address: str) -> None:
    urls = ["https://example.org/Atlantis", "passage:1/Atlantis", "passage:", "passage:x/", "", "Oslo", "\x00"]
    assert post(f"{address}/access", {"urls": urls}) == {"result": [None] * len(urls)}


def test_r1_searchers_trainer(address: str) -> None:
    """It deletes digits and the space after them from the beginning of each row, and numbers the rest."""
    queries = ["capital of Norway", "rome", "no such thing"]
    answers = post(f"{address}/queries", {"queries": queries, "k": 1})["answers"]
    assert [len(rows) for rows in answers] == [1, 1, 0]
    shown = [re.sub(r"^\d+\s+", "", rows[0]) for rows in answers[:2]]
    assert shown[0] == "Title: Oslo Text: Oslo is the capital of Norway."
    assert shown[1] == "Title: Rome Text: Rome is the capital of Italy.", "on one line, without the id wiki_8"
    assert answers[0][0].startswith("7\t"), "an id that is a number stays"


def test_r1_searchers_chunk_of_20_000_queries(address: str) -> None:
    answers = post(f"{address}/queries", {"queries": ["rome", "lima"] * 10_000, "k": 5}, 300)["answers"]
    assert len(answers) == 20_000
    assert {row.partition("Text: ")[2] for rows in answers for row in rows} == {
        "Rome is the capital of Italy.",
        "Lima is in Peru.",
    }

"""Dense indexes, with encoders of random weights: what is nearest is computed here one text at a time."""

import asyncio
import json
import random
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import aclosing
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from r1searcher.common import terminal
from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError
from r1searcher.evaluation.corpus_answers import search_corpus
from r1searcher.questions.question import Question
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.base import Hit, IndexDamagedError, NoLookupError, hits_of, passage_of
from r1searcher.retrieval.contract import check_retriever
from r1searcher.retrieval.indexing.bm25 import build as build_bm25
from r1searcher.retrieval.registry import settings_of, settings_of_table
from tests.retrieval.test_commands import r1s
from tests.retrieval.tiny_models import WORDS, tiny_bert

pytest.importorskip("torch")
pytest.importorskip("usearch", reason="needs the extra [dense]")
pytestmark = pytest.mark.training

from r1searcher.retrieval.engines.dense import DenseIndex, Settings  # noqa: E402
from r1searcher.retrieval.indexing import dense as indexing  # noqa: E402
from r1searcher.retrieval.indexing.base import DenseOptions, IndexOptions  # noqa: E402
from r1searcher.retrieval.neural.encoder import Encoder, EncoderSettings, settings_for  # noqa: E402

Precision = Literal["float32", "float16", "int8"]
LONGEST = 100


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("encoder") / "tiny", "BertModel")


@pytest.fixture(scope="module")
def passages() -> list[Passage]:
    draw = random.Random(4)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(3, 60))) for _ in range(500)]
    texts[400] = texts[30]
    return [Passage(f"p{n}", "w1 w2", text) for n, text in enumerate(texts)]


def options(model: Path, vectors: Precision = "float32", **settings: Any) -> DenseOptions:
    return DenseOptions(encoder=settings_for(str(model), **{"max_length": LONGEST, **settings}), vectors=vectors)


@pytest.fixture(scope="module")
def index(model: Path, passages: list[Passage], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dense") / "index"
    indexing.build(passages, path, options(model))
    return path


def embedded(model: Path, texts: Iterable[str], pooling: str = "mean") -> np.ndarray[Any, Any]:
    """Vectors by transformers alone, one text at a time."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
    rows = []
    for text in texts:
        with torch.inference_mode():
            states = network(**tokenizer(text, return_tensors="pt", truncation=True, max_length=LONGEST))[0][0]
        pooled = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling]
        rows.append((pooled / pooled.norm()).numpy())
    return np.stack(rows)


@pytest.fixture(scope="module")
def expected(model: Path, passages: list[Passage]) -> np.ndarray[Any, Any]:
    """The cosines of `QUERIES` (rows) and passages."""
    return embedded(model, QUERIES) @ embedded(model, [f"{p.title}\n{p.text}" for p in passages]).T


def search(path: Path, queries: Sequence[str], top_k: int, **keys: Any) -> list[list[Hit]]:
    async def run() -> list[list[Hit]]:
        async with aclosing(DenseIndex(path, Settings(url=f"dense:{path}", **keys))) as retriever:
            return [list(hits) for hits in await hits_of(retriever, queries, top_k)]

    return asyncio.run(run())


QUERIES = ["w5 w6 w7", "w100", "w1 w2 w3 w4 w5 w6"]


@pytest.mark.parametrize(("vectors", "error"), [("float32", 2e-6), ("float16", 1e-3), ("int8", 1e-2)])
def test_an_exact_search_finds_what_is_nearest(
    vectors: Precision, error: float, model: Path, passages: list[Passage], expected: Any, tmp_path: Path
) -> None:
    indexing.build(passages, tmp_path / "index", options(model, vectors))
    for hits, cosines in zip(search(tmp_path / "index", QUERIES, 20), expected, strict=True):
        assert [hit.score for hit in hits] == pytest.approx(np.sort(cosines)[::-1][:20], abs=error)
        for hit in hits:
            place = int(hit.passage.id[1:])
            assert hit.passage == passages[place]
            assert hit.score == pytest.approx(cosines[place], abs=error)


def test_equal_passages_are_in_corpus_order_in_every_block(
    model: Path, passages: list[Passage], index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from r1searcher.retrieval.engines import dense as engine

    [text] = [passages[30].text]
    whole = search(index, [text], 500)
    monkeypatch.setattr(engine, "_BLOCK", 37)
    [hits] = search(index, [text], 500)
    assert [hits] == whole
    ids = [hit.passage.id for hit in hits]
    assert ids.index("p400") == ids.index("p30") + 1
    assert len(set(ids)) == 500


def test_it_keeps_the_contract(index: Path) -> None:
    async def run() -> None:
        await check_retriever(open_retriever(f"dense:{index}"), "w5 w6")

    asyncio.run(run())


def test_the_graph_finds_nearly_all_and_scores_are_exact(
    model: Path, passages: list[Passage], index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "GRAPH_FROM", 100)
    path = tmp_path / "index"
    indexing.build(passages, path, options(model))
    assert (path / indexing.GRAPH).is_file()
    queries = [passage.text for passage in passages[:50]]
    exact, found = search(index, queries, 10), search(path, queries, 10)
    assert search(path, queries, 10, exact=True) == exact
    same = [len({*a} & {*b}) / 10 for a, b in zip(exact, found, strict=True)]  # hits are equal with equal scores only
    assert np.mean(same) > 0.95


def interrupted(passages: Sequence[Passage], after: int) -> Iterator[Passage]:
    yield from islice(passages, after)
    raise KeyboardInterrupt


@pytest.mark.parametrize("vectors", ["float16", "int8"])
def test_an_interrupted_build_resumes_with_the_same_files(
    vectors: Precision, model: Path, passages: list[Passage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "_CHUNK", 100)
    indexing.build(passages, tmp_path / "whole", options(model, vectors))
    path = tmp_path / "index"
    for after in (50, 250, 420):
        with pytest.raises(KeyboardInterrupt):
            indexing.build(interrupted(passages, after), path, options(model, vectors))
        with pytest.raises(InputError, match="There is no index"):
            DenseIndex(path)
    with pytest.raises(InputError, match="other passages or settings: --restart"):
        indexing.build(passages[1:], path, options(model, vectors))
    with pytest.raises(InputError, match="other passages or settings: --restart"):
        indexing.build(passages, path, options(model, vectors, query_prefix="w1 "))
    built = tmp_path / "index.building" / indexing.VECTORS
    committed = built.read_bytes()
    built.write_bytes(bytes([committed[0] ^ 1]) + committed[1:])
    with pytest.raises(InputError, match=r"vectors\.bin is damaged: use --restart"):
        indexing.build(passages, path, options(model, vectors))
    built.write_bytes(committed + b"what was not committed")
    encoded: list[int] = []
    encode = Encoder.passages
    monkeypatch.setattr(Encoder, "passages", lambda self, texts: encoded.append(len(texts)) or encode(self, texts))
    done: list[int] = []
    indexing.build(passages, path, options(model, vectors), on_progress=done.append)
    assert sum(encoded) == 100  # 400 were committed
    assert done[-1] == 500
    files = sorted(file.name for file in path.iterdir())
    assert files == sorted(file.name for file in (tmp_path / "whole").iterdir())
    for name in set(files) - {"checksums.json"}:  # which has modification times
        assert (path / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    with pytest.raises(InputError, match="already contains an index"):
        indexing.build(passages, path, options(model, vectors))
    indexing.build(passages[:7], path, options(model, vectors), IndexOptions(overwrite=True))
    assert DenseIndex(path).manifest.passages == 7


def test_another_model_of_the_same_name_is_refused(model: Path, passages: list[Passage], tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "model")
    indexing.build(passages[:20], tmp_path / "index", options(copy))
    tiny_bert(copy, "BertModel", seed=5)
    with pytest.raises(InputError, match=r"is not the model that .* was made with"):
        DenseIndex(tmp_path / "index")


def test_damaged_files_are_an_error_and_never_hits(index: Path, tmp_path: Path) -> None:
    path = shutil.copytree(index, tmp_path / "index")
    opened = DenseIndex(path)
    data = bytearray((path / indexing.VECTORS).read_bytes())
    data[1000] ^= 1
    (path / indexing.VECTORS).write_bytes(data)
    with pytest.raises(IndexDamagedError, match=r"vectors\.bin was changed"):
        asyncio.run(opened.search(["w1"], 3))
    with pytest.raises(InputError, match=r"damaged \(vectors\.bin"):
        DenseIndex(path)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_vector(pooling: Any, side: str, model: Path, tmp_path: Path) -> None:
    padded = shutil.copytree(model, tmp_path / "model")
    config = json.loads((padded / "tokenizer_config.json").read_text())
    (padded / "tokenizer_config.json").write_text(json.dumps({**config, "padding_side": side}))
    texts = ["w1", "w2 w3 w4 w5 w6 w7", "w8 w9 w10"]
    if side == "left" and pooling != "last":
        # BERT's positions count padding at the left, so that only the models that are padded there can be compared.
        pytest.skip("decoders are padded at the left, and pooled at the last token")
    encoder = Encoder(EncoderSettings(model=str(padded), pooling=pooling, passage_prefix="w20 ", max_length=LONGEST))
    expected = embedded(model, [f"w20 {text}" for text in texts], pooling)
    if side == "right":
        np.testing.assert_allclose(encoder.passages(texts), expected, atol=2e-6)
    np.testing.assert_allclose(encoder.passages(texts[1:2]), expected[1:2], atol=2e-6)


def test_prefixes_and_pooling_come_from_the_files_the_family_or_the_user(model: Path, tmp_path: Path) -> None:
    def made(model: str, *given: Any) -> tuple[str, str, str, int]:
        found = settings_for(model, *given)
        return found.pooling, found.query_prefix, found.passage_prefix, found.max_length

    bge = "Represent this sentence for searching relevant passages: "
    assert made("none/e5-base-v2") == ("mean", "query: ", "passage: ", 512)
    assert made("none/multilingual-e5-small") == ("mean", "query: ", "passage: ", 512)
    assert made("none/bge-large-en-v1.5") == ("cls", bge, "", 512)
    assert made("none/bge-m3") == ("cls", "", "", 512)
    assert made("none/all-MiniLM-L6-v2") == ("mean", "", "", 512)
    assert made("none/bge-large-en-v1.5", "mean", "", "p: ", 99) == ("mean", "", "p: ", 99)
    copy = shutil.copytree(model, tmp_path / "e5-mine")
    (copy / "1_Pooling").mkdir()
    (copy / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    (copy / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "Q: ", "document": ""}}))
    (copy / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 77}))
    assert made(str(copy)) == ("cls", "Q: ", "passage: ", 77)


def test_episodes_at_the_same_time_share_forward_passes(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    queries = Encoder.queries
    monkeypatch.setattr(Encoder, "queries", lambda self, texts: calls.append(len(texts)) or queries(self, texts))

    async def run() -> tuple[list[Any], list[Any]]:
        async with aclosing(DenseIndex(index)) as retriever:
            together = await asyncio.gather(*(retriever.search([f"w{n}"], 3) for n in range(64)))
            several = len(calls)
            assert several <= 3
            return together, [await retriever.search([f"w{n}"], 3) for n in range(64)]

    together, alone = asyncio.run(run())
    for [a], [b] in zip(together, alone, strict=True):
        assert [hit.passage for hit in a.hits] == [hit.passage for hit in b.hits]


def test_the_command_makes_an_index_that_search_finds(model: Path, passages: list[Passage], tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    rows = ({"id": p.id, "title": p.title, "text": p.text} for p in passages[:60])
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    to = tmp_path / "index"
    code, _, said = r1s("index-corpus", corpus, "--to", to, "--dense", model, "--vectors", "int8")
    assert code == 0, said
    assert "contains 60 passages" in said
    assert "pooling mean, prefixes none, at most 512 tokens" in said
    assert json.loads((to / "manifest.json").read_text())["prefixes"] == "none"
    code, found, said = r1s("search", f"dense:{to}", f"w1 w2 {passages[9].text}", "--json")
    assert code == 0, said
    assert json.loads(found)[0] == ["p9", pytest.approx(1, abs=0.01)]
    code, same, said = r1s("search", to, f"w1 w2 {passages[9].text}", "--json")
    assert (code, same) == (0, found), said


def test_a_folder_is_of_the_engine_that_made_the_index_in_it(index: Path, tmp_path: Path) -> None:
    made = build_bm25([Passage("1", "", "w1")], tmp_path / "bm25")
    assert made.passages == 1
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "manifest.json").write_text("{")
    for url, kind in (
        (str(index), "dense"),
        (f"file:{index}", "dense"),
        (str(tmp_path / "bm25"), "bm25"),
        (str(tmp_path / "none"), "bm25"),
        (str(tmp_path / "damaged"), "bm25"),
    ):
        assert settings_of(url).kind == kind, url
    assert (
        settings_of(f"{index} + {tmp_path / 'bm25'} -> fusion").shown
        == f"dense:{index} + {tmp_path / 'bm25'} -> fusion"
    )
    with pytest.raises(InputError, match=f"write dense:{index}"):
        settings_of_table("bm25", {"url": str(index)}).open()


def test_passages_are_found_by_their_id(model: Path, tmp_path: Path) -> None:
    ids = [*map(str, range(300)), "7", "https://example.org/å b?x=1#y", "The capital OF", "é" * 9_000, "\0"]
    passages = [Passage(id_, f"at {place}", "w1") for place, id_ in enumerate(ids)]
    indexing.build(passages, tmp_path / "index", options(model))

    async def titles(path: Path, wanted: Sequence[str]) -> list[str | None]:
        async with aclosing(open_retriever(str(path))) as retriever:
            found = [await passage_of(retriever, id_) for id_ in wanted]
        return [passage and passage.title for passage in found]

    assert asyncio.run(titles(tmp_path / "index", ids)) == [f"at {ids.index(id_)}" for id_ in ids]
    assert asyncio.run(titles(tmp_path / "index", ["300", "", "the capital of", "\ud800"])) == [None] * 4
    (tmp_path / "index" / indexing.IDS).unlink()
    (tmp_path / "index" / "checksums.json").unlink()
    with pytest.raises(NoLookupError):
        asyncio.run(titles(tmp_path / "index", ["7"]))


def test_ids_with_the_same_hash_are_told_apart(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "_hash_of", lambda id_: len(id_))
    indexing.build([Passage(id_, id_, "w1") for id_ in ("a", "bb", "c", "dd", "e")], tmp_path / "index", options(model))
    stored = indexing.passages_of(tmp_path / "index")
    assert [passage.id for passage in stored] == ["a", "bb", "c", "dd", "e"]
    assert [stored.with_id(id_) and id_ for id_ in ("a", "c", "e", "bb", "dd", "x", "xx", "xxx")] == [
        *("a", "c", "e", "bb", "dd"),
        *(None, None, None),
    ]


def test_the_exhaustive_pass_of_recall_reads_a_dense_index(index: Path, passages: list[Passage]) -> None:
    questions = [Question("1", "?", (passages[40].text,)), Question("2", "?", ("nowhere",))]
    for source in (str(index), f"dense:{index}"):
        answers = search_corpus(source, questions, terminal.console(stderr=True))
        assert (answers.passages, answers.first) == (500, ("p40", None))


def test_prefixes_are_named_by_their_family(model: Path) -> None:
    assert [settings_for(f"none/{name}").prefixes for name in ("e5-base-v2", "bge-base-en-v1.5", "bge-m3", "x")] == [
        *("e5", "bge", "none", "none")
    ]
    own = settings_for(str(model), query_prefix="ask: ")
    assert own.prefixes == "other"
    assert "prefixes other ('ask: ' for queries, '' for passages)" in own.summary


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--to", "opensearch://127.0.0.1:9/x", "--dense", "m"), "cannot be filled with vectors"),
        (("--to", "dense:x"), "add --dense MODEL"),
        (("--to", "x", "--dense", "/no/such/model"), "cannot be loaded"),
    ],
)
def test_bad_input_is_one_sentence(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(json.dumps({"id": "1", "title": "", "text": "x"}) + "\n")
    code, _, said = r1s("index-corpus", corpus, *words, env={"HF_HUB_OFFLINE": "1"})
    assert code == 2
    assert message in said

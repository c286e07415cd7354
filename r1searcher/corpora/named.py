"""Corpora known by name: where they are, and how they are distinguished from a damaged copy. Importing this is cheap.

Another package adds one by an entry point of the group `r1searcher.corpora`:

    NEWS = NamedCorpus("https://example.org/news.jsonl.gz", about="news of 2024, 3 M passages")
"""

from dataclasses import dataclass

from r1searcher.common.registry import Registry


@dataclass(frozen=True, slots=True)
class NamedCorpus:
    """A published corpus. `format` is the name of its format, detected if it is empty. `checksum` is `sha256:…` or
    `md5:…`; None if only the server states one (Hugging Face's `X-Linked-Etag`). `bytes_` is the size of the
    downloaded file, 0 if unknown."""

    url: str
    about: str
    format: str = ""
    bytes_: int = 0
    checksum: str | None = None

    @property
    def file_name(self) -> str:
        return self.url.rpartition("/")[2]


CORPORA: Registry[NamedCorpus] = Registry(
    "corpus",
    "r1searcher.corpora",
    {
        "hotpotqa-abstracts": NamedCorpus(
            "https://nlp.stanford.edu/projects/hotpotqa/enwiki-20171001-pages-meta-current-withlinks-abstracts.tar.bz2",
            "first paragraphs of the English Wikipedia of October 2017, 5.2 M passages; R1-Searcher trains on it",
            "hotpotqa",
            1_553_565_403,
            "sha256:1acca1c5cc93c4890ea51091d2bad7c3ef6987aead127ab88728dc9e26555729",
        ),
        "kilt-100w": NamedCorpus(
            "http://dl.fbaipublicfiles.com/KILT/kilt_knowledgesource.json",
            "the English Wikipedia of August 2019 in passages of 100 words, 29 M; R1-Searcher evaluates on it",
            "kilt",
            37_318_876_722,
            "md5:d1dca62aa6ba889d2e842182e3114af5",
        ),
        "wiki-18": NamedCorpus(
            "https://huggingface.co/datasets/PeterJinGo/wiki-18-corpus/resolve/main/wiki-18.jsonl.gz",
            "Search-R1's: the English Wikipedia of December 2018 in passages of 100 words, 21 M",
            "jsonl",
        ),
    },
    NamedCorpus,
)

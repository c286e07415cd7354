"""Text extraction: trafilatura, as `pages` calls it, against other libraries on pages whose main text is known.

    python benchmarks/text_extraction.py FOLDER

FOLDER is a copy of https://github.com/scrapinghub/article-extraction-benchmark (MIT license; the pages in it are their
publishers'): 181 pages of news and blogs as browsers saw them, and the article of each as people marked it. Libraries
that are not installed are left out.

F1, precision and recall are those of the bags of words of each page (lower case), averaged over the pages. Milliseconds
are of one thread. Prints a Markdown table.
"""

import argparse
import gzip
import json
import os
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

from r1searcher.common.public_web import Page
from r1searcher.retrieval.links.pages import main_text

Extract = Callable[[str], str]


def ours() -> Extract:
    import trafilatura  # noqa: F401

    return lambda page: main_text(Page("https://x.example/", 200, "text/html", "utf-8", page.encode()))


def trafilatura_with(**options: bool) -> Callable[[], Extract]:
    def extractor() -> Extract:
        import trafilatura

        return lambda page: trafilatura.extract(page, include_comments=False, **options) or ""

    return extractor


def readability() -> Extract:
    import lxml.html
    from readability import Document

    return lambda page: str(lxml.html.fromstring(Document(page).summary()).text_content())


def justext() -> Extract:
    import justext

    stop_words = justext.get_stoplist("English")
    return lambda page: "\n".join(p.text for p in justext.justext(page, stop_words) if not p.is_boilerplate)


def resiliparse() -> Extract:
    from resiliparse.extract.html2text import extract_plain_text

    return lambda page: str(extract_plain_text(page, main_content=True))


def boilerpy3() -> Extract:
    from boilerpy3.extractors import ArticleExtractor

    extractor = ArticleExtractor(raise_on_failure=False)
    return lambda page: str(extractor.get_content(page))


def newspaper() -> Extract:
    from newspaper import Article

    def extract(page: str) -> str:
        article = Article("https://x.example/", language="en", fetch_images=False)
        article.download(input_html=page)
        article.parse()
        return str(article.text)

    return extract


def goose() -> Extract:
    from goose3 import Goose

    reader = Goose({"enable_image_fetching": False})
    return lambda page: str(reader.extract(raw_html=page).cleaned_text)


def html2text() -> Extract:
    import html2text

    converter = html2text.HTML2Text()
    converter.ignore_links = converter.ignore_images = True
    return lambda page: str(converter.handle(page))


def inscriptis() -> Extract:
    from inscriptis import get_text

    return lambda page: str(get_text(page))


def selectolax() -> Extract:
    from selectolax.lexbor import LexborHTMLParser

    def extract(page: str) -> str:
        tree = LexborHTMLParser(page)
        tree.strip_tags(["script", "style", "noscript", "nav", "header", "footer", "aside", "form"])
        return tree.body.text(separator=" ") if tree.body else ""

    return extract


def markdownify() -> Extract:
    from markdownify import markdownify

    return lambda page: str(markdownify(page, strip=["a", "img", "script", "style"]))


LIBRARIES: Mapping[str, tuple[str, Callable[[], Extract]]] = {
    "trafilatura, as `pages` calls it": ("trafilatura", ours),
    "trafilatura, its defaults": ("trafilatura", trafilatura_with()),
    "trafilatura, `fast`": ("trafilatura", trafilatura_with(fast=True)),
    "trafilatura, `favor_precision`": ("trafilatura", trafilatura_with(favor_precision=True)),
    "readability-lxml": ("readability-lxml", readability),
    "newspaper4k": ("newspaper4k", newspaper),
    "goose3": ("goose3", goose),
    "resiliparse": ("resiliparse", resiliparse),
    "justext": ("justext", justext),
    "boilerpy3": ("boilerpy3", boilerpy3),
    "selectolax, without navigation": ("selectolax", selectolax),
    "inscriptis (whole page)": ("inscriptis", inscriptis),
    "html2text (whole page)": ("html2text", html2text),
    "markdownify (whole page)": ("markdownify", markdownify),
}


def pages_in(folder: Path) -> list[tuple[str, str]]:
    """Page and main text."""
    known = json.loads((folder / "ground-truth.json").read_text("utf-8"))
    return [
        (gzip.decompress((folder / "html" / f"{name}.html.gz").read_bytes()).decode("utf-8", "replace"), truth)
        for name, row in known.items()
        if (truth := row.get("articleBody", ""))
    ]


def agreement(found: str, truth: str) -> tuple[float, float, float]:
    """F1, precision and recall of the words.

    >>> agreement("a b b", "b c")
    (0.4, 0.3333333333333333, 0.5)
    """
    one, other = (Counter(re.findall(r"\w+", text.lower())) for text in (found, truth))
    common = (one & other).total()
    precision = common / one.total() if one else 0.0
    recall = common / other.total() if other else 0.0
    return (2 * precision * recall / (precision + recall) if common else 0.0), precision, recall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    pages = pages_in(options.folder)
    size = statistics.mean(len(page) for page, _ in pages) / 1024
    print(f"\n{len(pages)} pages of {size:.0f} KB on average; load average {os.getloadavg()[0]:.0f}\n")
    print("| library | version | license | F1 | worst tenth | precision | recall | no text | CPU ms per page | p95 |")
    print("|---" * 10 + "|")
    for name, (package, made) in LIBRARIES.items():
        try:
            extract = made()
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            continue
        print(row(name, package, extract, pages), flush=True)


def row(name: str, package: str, extract: Extract, pages: list[tuple[str, str]]) -> str:
    extract(pages[0][0])
    scores, seconds, empty = [], [], 0
    for page, truth in pages:
        started = time.thread_time()
        try:
            found = extract(page)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}"[:200], file=sys.stderr)
            found = ""
        seconds.append(time.thread_time() - started)
        empty += not found.strip()
        scores.append(agreement(found, truth))
    f1, precision, recall = (statistics.mean(values) for values in zip(*scores, strict=True))
    worst = statistics.mean(sorted(score for score, _, _ in scores)[: len(scores) // 10])
    about = metadata.metadata(package)
    license_ = (about["License-Expression"] or about["License"] or "see package").splitlines()[0][:20]
    p95 = statistics.quantiles(seconds, n=20)[-1]
    return (
        f"| {name} | {about['Version']} | {license_} | {f1:.3f} | {worst:.3f} | {precision:.3f} | {recall:.3f} "
        f"| {empty} | {1000 * statistics.mean(seconds):.1f} | {1000 * p95:.1f} |"
    )


if __name__ == "__main__":
    main()

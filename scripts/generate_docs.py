"""Updates the parts of the docs that are generated from the code, such as tables of registries.

    python scripts/generate_docs.py            # updates them in README.md, CONTRIBUTING.md and docs/
    python scripts/generate_docs.py --check    # changes nothing; exit code 1 if a page is out of date

Such a part is a region of a page between two markers:

    <!-- generated: reward-parts -->
    …
    <!-- end: reward-parts -->

To add one, write a function that returns Markdown, add it to `REGIONS`, and put the two markers in a page. Tables
list the built-in entries (`Registry.builtin`), not those of other installed packages.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from r1searcher.common.section import Section

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

_REGION = re.compile(r"^<!-- generated: (\S+) -->\n(.*?)^<!-- end: (\S+) -->$", re.DOTALL | re.MULTILINE)
_MARK = re.compile(r"^<!-- (?:generated|end): .*$", re.MULTILINE)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table. Line ends and bars inside a cell are replaced and escaped."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join("| " + " | ".join(_cell(cell) for cell in line) + " |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def code(text: str) -> str:
    """Text as code: `f1` in backticks."""
    return f"`{text}`"


def sentence(documented: object) -> str:
    """The docstring of a function or class in one line."""
    return " ".join((documented.__doc__ or "").split())


def reward_parts() -> str:
    from r1searcher.rewards.parts import PARTS

    def parameters(name: str) -> str:
        _, *accepted = inspect.signature(PARTS[name]).parameters.values()
        return ", ".join(code(f"{parameter.name} = {parameter.default}") for parameter in accepted)

    rows = ((code(name), sentence(PARTS[name]), parameters(name)) for name in PARTS.builtin)
    return table(("part", "value", "params"), rows)


def format_rules() -> str:
    from r1searcher.rewards.format import FORMAT_RULES

    rows = ((code(name), sentence(FORMAT_RULES[name])) for name in FORMAT_RULES.builtin)
    return table(("rule", "broken when"), rows)


def protocols() -> str:
    from r1searcher.episodes.protocol import PROTOCOLS

    rows = ((code(name), sentence(type(PROTOCOLS[name]))) for name in PROTOCOLS.builtin)
    return table(("name", "protocol"), rows)


def recipes() -> str:
    from r1searcher.rewards.recipes import RECIPES, Part

    def term(part: Part) -> str:
        earned = f"{part.weight:g} {code(part.name)}" if part.weight != 1 else code(part.name)
        if part.if_zero is None:
            return earned
        instead = f"{part.if_zero:g} if {code(part.name)} is 0"
        return f"{earned}, {instead}" if part.weight else instead

    def stage(parts: Sequence[Part]) -> str:
        return "; ".join(map(term, parts)) or "none"

    rows = ((code(name), *(stage(RECIPES[name].get(s, ())) for s in ("stage1", "stage2"))) for name in RECIPES.builtin)
    return table(("recipe", "stage 1", "stage 2"), rows)


def corpus_formats() -> str:
    from r1searcher.corpora.formats import FORMATS

    return table(("format", "what a row is"), ((code(name), FORMATS[name].about) for name in FORMATS.builtin))


def named_corpora() -> str:
    from r1searcher.corpora.named import CORPORA

    entries = ((name, CORPORA[name]) for name in CORPORA.builtin)
    sizes = ((name, corpus, f"{corpus.bytes_ / 1e9:,.1f} GB" if corpus.bytes_ else "") for name, corpus in entries)
    return table(("name", "what it is", "download"), ((code(name), corpus.about, size) for name, corpus, size in sizes))


def datasets() -> str:
    from r1searcher.questions.datasets import DATASETS, NamedDataset

    def splits(dataset: NamedDataset) -> str:
        return ", ".join(f"**{name}**" if name == dataset.evaluated_split else name for name in dataset.splits)

    entries = ((name, DATASETS[name]) for name in DATASETS.builtin)
    rows = ((code(name), splits(dataset), ", ".join(map(code, dataset.files))) for name, dataset in entries)
    return table(("name", "splits", "files that replace the split in bold in a folder"), rows)


def official_scorers() -> str:
    from r1searcher.questions.datasets import DATASETS
    from r1searcher.questions.scorers import official_scorer

    scorers = ((name, scorer) for name in DATASETS.builtin if (scorer := official_scorer(name)))
    rows = ((code(name), code(s.program), s.repository, sentence(s.metrics)) for name, s in scorers)
    return table(("dataset", "scorer", "source", "metrics"), rows)


def algorithms() -> str:
    from r1searcher.engine.openrlhf.algorithms import ALGORITHMS
    from r1searcher.engine.openrlhf.flags import argv

    entries = ((name, ALGORITHMS[name]) for name in ALGORITHMS.builtin)
    rows = (
        (
            code(name),
            algorithm.description,
            "2 or more" if algorithm.needs_group else "1 or more",
            code(" ".join(argv({"algo.advantage.estimator": algorithm.estimator, **algorithm.flags}))),
            algorithm.paper,
        )
        for name, algorithm in entries
    )
    return table(("`rl.algorithm`", "advantage and loss", "samples per question", "OpenRLHF's flags", "paper"), rows)


def watch_rules() -> str:
    from r1searcher.watch.rules import RULES

    def first(name: str) -> str:
        return " ".join((RULES[name].__doc__ or "").partition("\n\n")[0].split())

    return table(("rule", "asked after each step"), ((code(name), first(name)) for name in RULES.builtin))


def checks() -> str:
    from r1searcher.checks.runner import CHECKS

    found = ((name, CHECKS[name]) for name in CHECKS.builtin)
    rows = (
        (
            code(name) + " (`r1s check`)" * check.thorough,
            ", ".join(check.stages),
            " ".join((check.run.__doc__ or "").split()),
        )
        for name, check in found
    )
    return table(("check", "stages", "passes if"), rows)


def keys(section: "type[Section]", without: Iterable[str] = ()) -> str:
    """The settings of a table: each with its default, if it has one, and its meaning."""
    cells = []
    for key, field in section.model_fields.items():
        if key not in without:
            default = "" if field.is_required() or field.default in (None, ()) else f" = {field.default}"
            cells.append(f"`{key}`{default}: {(field.description or '').rstrip('.')}")
    return "; ".join(cells)


def retrievers() -> str:
    from r1searcher.retrieval.base import EngineSettings
    from r1searcher.retrieval.registry import RETRIEVERS, links

    common = EngineSettings.model_fields
    around_others = links()
    entries = ((name, RETRIEVERS[name]) for name in RETRIEVERS.builtin if name not in around_others)
    rows = ((code(n), sentence(e), keys(e, common), ", ".join(map(code, e.environment))) for n, e in entries)
    return table(("kind", "URL", "further keys", "environment variables"), rows)


def links_() -> str:
    from r1searcher.retrieval.base import EngineSettings
    from r1searcher.retrieval.registry import RETRIEVERS, links

    common = {**EngineSettings.model_fields, "of": None}
    rows = ((code(n), sentence(RETRIEVERS[n]), keys(RETRIEVERS[n], common)) for n in links())
    return table(("kind", "in a URL", "further keys"), rows)


def trackers() -> str:
    from r1searcher.tracking.base import TRACKERS

    rows = ((code(name), code(TRACKERS[name].package), keys(TRACKERS[name])) for name in TRACKERS.builtin)
    return table(("tracker", "package", "keys"), rows)


def settings() -> str:
    from r1searcher.config.template import template

    return f"```toml\n{template()}```\n"


def measures() -> str:
    from r1searcher.rewards.measures import MEASURES, View

    def unit(low: float, high: float, unit: str) -> str:
        if unit:
            return unit
        return "0 to 1" if (low, high) == (0.0, 1.0) else "number"

    rows = (
        (
            code(m.name),
            m.label,
            m.meaning,
            unit(*m.range, m.unit),
            ", ".join([v.value for v in View if v in m.shown] + ["`[stop]`"] * m.is_in_training),
        )
        for m in (MEASURES[name] for name in MEASURES.builtin)
    )
    return table(("name", "label", "meaning", "unit", "where it is used"), rows)


REGIONS: Mapping[str, Callable[[], str]] = {
    "reward-parts": reward_parts,
    "recipes": recipes,
    "format-rules": format_rules,
    "protocols": protocols,
    "corpus-formats": corpus_formats,
    "named-corpora": named_corpora,
    "datasets": datasets,
    "official-scorers": official_scorers,
    "algorithms": algorithms,
    "watch-rules": watch_rules,
    "checks": checks,
    "retrievers": retrievers,
    "links": links_,
    "trackers": trackers,
    "settings": settings,
    "measures": measures,
}


class RegionError(ValueError):
    """A marker without a function in `REGIONS`, or without a counterpart in its page."""


def pages() -> list[Path]:
    """The pages that may hold regions."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def regenerated(text: str, regions: Mapping[str, Callable[[], str]] = REGIONS) -> str:
    """The text of a page with every region up to date. Raises `RegionError` for mismatched markers."""

    def replaced(match: re.Match[str]) -> str:
        name, _, end = match.groups()
        if name != end or name not in regions:
            raise RegionError(f"{match[0].splitlines()[0]} ends with `{end}`; known are {', '.join(regions)}")
        return f"<!-- generated: {name} -->\n{regions[name]().strip()}\n<!-- end: {name} -->"

    found = len(_REGION.findall(text))
    if len(_MARK.findall(text)) != 2 * found:
        raise RegionError("a marker `<!-- generated: … -->` or `<!-- end: … -->` is unpaired")
    return _REGION.sub(replaced, text)


def main() -> int:
    stale = []
    for page in pages():
        text = page.read_text("utf-8")
        if (new := regenerated(text)) != text:
            stale.append(str(page.relative_to(ROOT)))
            if "--check" not in sys.argv:
                page.write_text(new, "utf-8")
    for name in stale:
        print(f"{name} {'is out of date' if '--check' in sys.argv else 'updated'}")
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())

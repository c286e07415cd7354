"""Tables of the docs are what the registries say now; see scripts/generate_docs.py."""

from collections import Counter

import pytest

from scripts import generate_docs

PAGES = generate_docs.pages()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(generate_docs.ROOT)))
def test_the_page_is_up_to_date(page):
    text = page.read_text("utf-8")
    assert generate_docs.regenerated(text) == text, "run `python scripts/generate_docs.py`"


def test_every_region_is_on_one_page():
    found = Counter(name for page in PAGES for name, _, _ in generate_docs._REGION.findall(page.read_text("utf-8")))
    assert found == dict.fromkeys(generate_docs.REGIONS, 1)


def test_a_region_is_replaced_and_nothing_else():
    page = "before\n<!-- generated: t -->\nstale\n<!-- end: t -->\nafter\n"
    table = generate_docs.table(("name", "value"), [("a | b", "two\nlines")])
    expected = "| name | value |\n| --- | --- |\n| a \\| b | two lines |\n"
    assert generate_docs.regenerated(page, {"t": lambda: table}) == page.replace("stale\n", expected)


@pytest.mark.parametrize(
    "page",
    [
        "<!-- generated: unknown -->\n<!-- end: unknown -->\n",
        "<!-- generated: t -->\n<!-- end: other -->\n",
        "<!-- generated: t -->\n",
        "<!-- end: t -->\n",
    ],
)
def test_marks_that_do_not_fit_are_an_error(page):
    with pytest.raises(generate_docs.RegionError):
        generate_docs.regenerated(page, {"t": lambda: "x"})

"""Names in questions and passages."""

import pytest

from r1searcher.traces.names import asked_words, bare, capitalized, names_of


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Is the Bay of Pigs in Cuba or Haiti?", ["Is the Bay of Pigs in Cuba", "Haiti"]),
        ('Who wrote "The Cold Mirror" in 1971?', ["Who", "The Cold Mirror", "1971"]),
        ("Rosa Lang's first film, Silver Harbor.", ["Rosa Lang", "Silver Harbor"]),
        (
            "It came out in 1971. Marcus Hart Jr. directed it in Oslo. Rosa Lang",
            ["It", "1971", "Marcus Hart Jr", "Oslo", "Rosa Lang"],
        ),
        ("nothing here", []),
        ("", []),
    ],
)
def test_runs_of_capitalized_words_may_join_small_words(text: str, names: list[str]) -> None:
    found = capitalized(text)
    assert [name.text for name in found] == names
    assert all(text[name.start : name.end] == name.text for name in found)


@pytest.mark.parametrize(
    ("question", "titles", "names"),
    [
        ("Who directed Silver Harbor?", ["Silver Harbor (film)", "Harbor"], ["Silver Harbor"]),
        ("What is Rosa Lang's birthplace?", ["rosa lang"], ["Rosa Lang"]),
        ("Is the Bay of Pigs in Cuba or Haiti?", ["Cuba", "Bay of Pigs", "Pigs"], ["Bay of Pigs", "Cuba"]),
        ("Are A.B. Cole, Jr. and Ada Cole related?", ["Ada Cole", "A. B. Cole Jr"], ["A.B. Cole, Jr", "Ada Cole"]),
        ("Is Cole older than Ada, or Ada older than Cole?", ["Ada", "Cole"], ["Cole", "Ada"]),
        ("which film is in the harbor?", ["Film", "Harbor"], []),
        ("Who is it?", ["", "()", "The"], []),
    ],
)
def test_titles_in_a_question_are_found_as_it_writes_them(question: str, titles: list[str], names: list[str]) -> None:
    found = names_of(question, titles)
    assert [name.text for name in found] == names
    assert all(question[name.start : name.end] == name.text for name in found)


def test_a_title_is_compared_without_its_disambiguation() -> None:
    assert bare("The Cold Mirror (1971 film)") == bare("Cold mirror") == "cold mirror"
    assert bare("(film)") == ""


def test_what_is_asked_for_is_the_words_outside_names_that_say_something() -> None:
    question = "In which year was the director of Silver Harbor born, who also wrote Rosa?"
    assert asked_words(question, names_of(question, ["Silver Harbor", "Rosa"])) == ["year", "director", "born", "wrote"]
    assert asked_words(question, names_of(question, ["Silver Harbor"]), most=2) == ["year", "director"]

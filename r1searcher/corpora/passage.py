"""The unit of a corpus."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Passage:
    """One retrievable piece of text.

    `id` is unique in its corpus. `title` may be empty.
    """

    id: str
    title: str
    text: str


class SharedPassage(Passage):
    """A passage that several rows may hold under the same id: a corpus takes it once."""

    __slots__ = ()


def make_passage(id_: object, title: object, text: object) -> Passage:
    """A passage of values that come from outside. Raises `ValueError` with the reason why they make none."""
    if isinstance(id_, bool) or not isinstance(id_, (str, int)) or id_ == "":
        raise ValueError("the id is missing" if id_ in (None, "") else "the id is neither text nor a whole number")
    if title is not None and not isinstance(title, str):
        raise ValueError("the title is not text")
    if not isinstance(text, str):
        raise ValueError("the text is missing" if text is None else "the text is not text")
    passage = Passage(str(id_), (title or "").strip(), text.strip())
    if not passage.title and not passage.text:
        raise ValueError("title and text are empty")
    if not (passage.text.isascii() and passage.title.isascii() and passage.id.isascii()):
        for part in (passage.id, passage.title, passage.text):
            try:
                part.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"half a character (a lone surrogate) is at index {error.start}") from error
    return passage

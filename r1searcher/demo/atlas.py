"""An invented atlas in plain English: films, the people who made them, the towns they come from.

None of it can be known without a search, so a correct answer proves that the model searched. Every relation is phrased
in several ways, in passages and in questions. Training and held-out questions are about different films, people and
towns, in one index.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product, zip_longest

from r1searcher.corpora.passage import Passage


@dataclass(frozen=True, slots=True)
class Hop:
    """One fact on the way to an answer: the `relation` of `subject` is `answer`, and `query` finds the passage."""

    subject: str
    relation: str
    answer: str

    @property
    def query(self) -> str:
        return f"{self.subject} {self.relation}"


@dataclass(frozen=True, slots=True)
class AtlasQuestion:
    """A question, its gold answers, and the facts that lead to them in order (the last one's answer is gold)."""

    id: str
    question: str
    gold_answers: tuple[str, ...]
    hops: tuple[Hop, ...]


@dataclass(frozen=True, slots=True)
class Atlas:
    """Passages of the whole world; one-hop and two-hop questions in random order, in two disjoint parts of it."""

    passages: tuple[Passage, ...]
    train: tuple[AtlasQuestion, ...]
    held_out: tuple[AtlasQuestion, ...]


def _words(text: str) -> list[str]:
    return text.split()


# Words of common vocabularies, so that a name is two or three tokens and not many fragments.
_FIRST_NAMES = _words(
    "Anna Clara Felix Hugo Leon Maria Rosa Simon Tara Agnes Martha Edith Oscar Ruth Alma Vera Walter Hugh Frank "
    "Arthur Peter Victor Edgar Ivan Harold Julia Helen Laura Emma Lucy Alice Martin Oliver Adam Paul Louis Henry Carl "
    "Otto Eva Ada Nina Lily Grace Sophie Flora Marcus Julian"
)
_LAST_NAMES = _words(
    "Marsh Frost Reed Wolf Hart Crane Drake Swan Moore Holt Webb Lane Cross Pike Sutton Locke Shaw Quinn Nash Blake "
    "Wells Flint Boyd Kerr Penn Lund Berg Stern Roth Weber Lang Silva Costa Blanc Ward Burke Perry Walsh Cole Ellis"
)
_TOWN_STARTS = _words(
    "Fox Mill Ash Elm Oak Clear Cold Long Broad High Low Deep Bright Winter Summer King Queen Bishop Copper Iron"
)
_TOWN_ENDS = _words("field ford well port bury bridge haven gate wick mere burgh stead")
_TITLE_STARTS = _words(
    "Silver Broken Silent Golden Hidden Burning Distant Frozen Crimson Hollow Wandering Forgotten Painted Restless "
    "Secret Velvet Midnight Paper Empty Lonely"
)
_TITLE_ENDS = _words(
    "Harbor Garden Mirror Lantern Orchard Castle Letter Compass Violin Sparrow Mountain Station Island Carousel "
    "Window Shadow Feather Clock Bridge Kingdom"
)
_RIVERS = _words("Arden Corra Gwyn Lorne Tessa Orin Velda Maren Isar Dorn Alva Brae")
_CRAFTS = _words("glass cheese clocks tulips violins pottery cider linen honey carpets knives candles umbrellas boats")
_STUDIOS = _words("Northlight Bluebird Meridian Cobalt Evergreen Pinnacle Redstone Halcyon")

_FILM_PASSAGES = (
    "{film} is a film of {year} by the studio {studio}. {director} directed it, and {composer} composed the music.",
    "The film {film} came out in {year}. Its director was {director}, its composer {composer}, its studio {studio}.",
    "Released in {year} by {studio}, {film} was directed by {director}, with music written by {composer}.",
)
_PERSON_PASSAGES = (
    "{person} is a {job} from {town}, born in {year}.",
    "The {job} {person} was born in {year}. The birthplace of {person} is {town}.",
    "Born in {town} in {year}, {person} grew up to be a {job}.",
)
_TOWN_PASSAGES = (
    "{town} is a small town on the river {river}. All over the country it is known for {craft}.",
    "The river {river} flows through {town}. Visitors come to this quiet town for the {craft}.",
    "{town} is one of the smaller towns on the river {river}. It is famous for its {craft}.",
)

# How a question asks for a relation of a subject, and, if a second fact can follow from it, how its answer is
# paraphrased. Each paraphrase is a clause, so that the words show that two searches are needed, as in real questions.
_ASKED = {
    "director": ("Who directed {x}?", "Who was the director of {x}?", "By whom was {x} directed?"),
    "composer": ("Who composed the music of {x}?", "Who was the composer of {x}?", "Whose music is heard in {x}?"),
    "studio": ("Which studio made {x}?", "What is the name of the studio behind {x}?"),
    "release year": ("In which year was {x} released?", "When did {x} come to the cinemas?"),
    "birthplace": ("Where was {x} born?", "In which town was {x} born?", "What is the birthplace of {x}?"),
    "birth year": ("In which year was {x} born?", "What is the birth year of {x}?"),
    "river": ("Which river flows through {x}?", "On which river does {x} lie?"),
    "craft": ("Which craft is {x} known for?", "Which craft is {x} famous for?"),
}
_PARAPHRASED = {
    "director": ("the person who directed {x}", "the person behind the camera of {x}"),
    "composer": ("the person who wrote the music of {x}", "the person whose music is heard in {x}"),
    "birthplace": ("the town where {x} was born", "the town that {x} comes from"),
}

_Facts = dict[str, dict[str, str]]
"""subject -> relation -> answer"""


def make_atlas(seed: int = 0, *, films: int = 400, people: int = 480, towns: int = 120, held_out: float = 0.2) -> Atlas:
    """Generates a world: the same `seed` and sizes give the same one. `held_out` is the share of held-out entities.

    >>> len(make_atlas(0).passages)
    1000
    """
    rng = random.Random(seed)
    titles = _draw(rng, _TITLE_STARTS, " ", _TITLE_ENDS, films)
    persons = _draw(rng, _FIRST_NAMES, " ", _LAST_NAMES, people)
    places = _draw(rng, _TOWN_STARTS, "", _TOWN_ENDS, towns)

    passages: list[Passage] = []

    def part(name: str, of: Callable[[list[str]], list[str]]) -> tuple[AtlasQuestion, ...]:
        asked = list(_ask(rng, _invent(rng, of(titles), of(persons), of(places), passages)))
        rng.shuffle(asked)
        # One-hop and two-hop questions alternate, so that every training step has equally many of each: a step of
        # mostly one kind would teach the plan of that kind for all questions.
        kinds = ([question for question in asked if len(question[1]) == hops] for hops in (1, 2))
        mixed = [question for pair in zip_longest(*kinds) for question in pair if question]
        return tuple(
            AtlasQuestion(f"{name}-{number}", text, (hops[-1].answer,), hops)
            for number, (text, hops) in enumerate(mixed)
        )

    def border(names: list[str]) -> int:
        return round(len(names) * (1 - held_out))

    train = part("train", lambda names: names[: border(names)])
    held = part("held", lambda names: names[border(names) :])
    return Atlas(tuple(passages), train, held)


def _draw(rng: random.Random, starts: Sequence[str], glue: str, ends: Sequence[str], n: int) -> list[str]:
    return rng.sample([start + glue + end for start, end in product(starts, ends)], n)


def _invent(
    rng: random.Random, films: Sequence[str], people: Sequence[str], towns: Sequence[str], passages: list[Passage]
) -> _Facts:
    """Assigns facts to every name, and appends a passage about each to `passages`."""
    facts: _Facts = {}

    def write(title: str, forms: Sequence[str], **words: str) -> None:
        passages.append(Passage(f"atlas-{len(passages)}", title, rng.choice(forms).format(**words)))

    for town in towns:
        river, craft = rng.choice(_RIVERS), rng.choice(_CRAFTS)
        facts[town] = {"river": river, "craft": craft}
        write(town, _TOWN_PASSAGES, town=town, river=river, craft=craft)
    directors, composers = people[: len(people) // 2], people[len(people) // 2 :]
    for person in people:
        town, year = rng.choice(towns), str(rng.randint(1900, 1979))
        facts[person] = {"birthplace": town, "birth year": year}
        job = "film director" if person in directors else "composer"
        write(person, _PERSON_PASSAGES, person=person, job=job, town=town, year=year)
    for film in films:
        director, composer = rng.choice(directors), rng.choice(composers)
        studio, year = rng.choice(_STUDIOS), str(rng.randint(1930, 2019))
        facts[film] = {"director": director, "composer": composer, "studio": studio, "release year": year}
        write(film, _FILM_PASSAGES, film=film, director=director, composer=composer, studio=studio, year=year)
    return facts


def _ask(rng: random.Random, facts: _Facts) -> Iterator[tuple[str, tuple[Hop, ...]]]:
    """Every one-hop question, and every two-hop question that starts from a film or a person."""
    for subject, relations in facts.items():
        name = rng.choice((subject, f"the film {subject}")) if "director" in relations else subject
        for relation, answer in relations.items():
            first = Hop(subject, relation, answer)
            yield rng.choice(_ASKED[relation]).format(x=name), (first,)
            for second, end in facts.get(answer, {}).items() if relation in _PARAPHRASED else ():
                inner = rng.choice(_PARAPHRASED[relation]).format(x=name)
                yield rng.choice(_ASKED[second]).format(x=inner), (first, Hop(answer, second, end))

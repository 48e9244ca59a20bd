"""Short facts to remember: days, months, opposites, capitals, animals, colours, plurals."""

from __future__ import annotations

import random

from .common import Prompt, Turn, asks, capital, with_article

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
SEASONS = ["spring", "summer", "autumn", "winter"]


def _pairs(text: str) -> dict[str, str]:
    return dict(item.strip().split("=") for item in text.replace("\n", ",").split(",") if item.strip())


CAPITALS = _pairs("""France=Paris,Germany=Berlin,Italy=Rome,Spain=Madrid,Portugal=Lisbon,England=London,Ireland=Dublin
Austria=Vienna,Switzerland=Bern,Belgium=Brussels,Poland=Warsaw,Greece=Athens,Norway=Oslo,Sweden=Stockholm
Finland=Helsinki
Denmark=Copenhagen,Hungary=Budapest,Russia=Moscow,Turkey=Ankara,Egypt=Cairo,Kenya=Nairobi,Japan=Tokyo,China=Beijing
India=New Delhi,Canada=Ottawa,Mexico=Mexico City,Brazil=Brasilia,Argentina=Buenos Aires,Chile=Santiago,Peru=Lima
Cuba=Havana
Australia=Canberra,Iceland=Reykjavik,Scotland=Edinburgh,the United States=Washington,Thailand=Bangkok,Vietnam=Hanoi""")
OPPOSITES = _pairs("""hot=cold,big=small,fast=slow,tall=short,happy=sad,good=bad,old=young,new=used,light=dark
open=closed,full=empty,high=low,hard=soft,wet=dry,rich=poor,strong=weak,early=late,left=right,up=down,in=out
day=night,black=white
clean=dirty,loud=quiet,heavy=easy to lift,near=far,first=last,true=false,yes=no,begin=end,win=lose,buy=sell,love=hate
push=pull,question=answer,north=south,east=west,sweet=sour,thick=thin,wide=narrow,deep=shallow,safe=dangerous""")
OPPOSITES["heavy"] = "light"
SOUNDS = _pairs("""dog=woof,cat=meow,cow=moo,sheep=baa,duck=quack,pig=oink,lion=roar,frog=ribbit,bee=buzz,horse=neigh
mouse=squeak,rooster=cock-a-doodle-doo""")
YOUNG = _pairs(
    "dog=puppy,cat=kitten,cow=calf,sheep=lamb,duck=duckling,horse=foal,bear=cub,goose=gosling,goat=kid,hen=chick"
)
COLOURS = _pairs("""the sky=blue,grass=green,snow=white,a banana=yellow,a tomato=red,coal=black,an orange=orange
the sun=yellow,blood=red,a carrot=orange,a frog=green,milk=white,chocolate=brown,a lemon=yellow,a cherry=red
a leaf=green""")
PLURALS = _pairs("""cat=cats,dog=dogs,mouse=mice,child=children,foot=feet,tooth=teeth,man=men,woman=women,box=boxes
city=cities,baby=babies,leaf=leaves,sheep=sheep,fish=fish,goose=geese,book=books,knife=knives,bus=buses,model=models
token=tokens,matrix=matrices,story=stories""")
PAST = _pairs("""go=went,see=saw,eat=ate,run=ran,write=wrote,read=read,sing=sang,swim=swam,take=took,give=gave,come=came
make=made,have=had,buy=bought,think=thought,play=played,walk=walked,learn=learned,begin=began,speak=spoke,find=found""")
NUMBERS = _pairs("""days are in a week=7 days in a week,months are in a year=12 months in a year
hours are in a day=24 hours in a day,minutes are in an hour=60 minutes in an hour
seasons are in a year=4 seasons in a year,seconds are in a minute=60 seconds in a minute
letters are in the alphabet=26 letters in the alphabet
legs does a spider have=!A spider has 8 legs.,legs does a dog have=!A dog has 4 legs.
wheels does a car have=!A car has 4 wheels.,wheels does a bike have=!A bike has 2 wheels.
legs does a bird have=!A bird has 2 legs.""")

_OPP_Q = (
    "What is the opposite of {k}?",
    "What is the opposite of {k}?",
    'What is the opposite of "{k}"?',
    "Give the opposite of {k}.",
    "Tell me the opposite of {k}.",
    "opposite of {k}",
    "What's the opposite of {k}?",
)

# Each kind of fact: its table, the wordings of training, one that is held out, and the answer.
KINDS: dict[str, tuple[dict, tuple[str, ...], str, str]] = {
    "capital": (
        CAPITALS,
        (
            "What is the capital of {k}?",
            "What is the capital of {k}?",
            "What's the capital of {k}?",
            "Name the capital of {k}.",
            "Which city is the capital of {k}?",
            "Tell me the capital of {k}.",
            "capital of {k}",
            "Do you know the capital of {k}?",
        ),
        "Can you tell me what the capital of {k} is?",
        "The capital of {k} is {v}.",
    ),
    "opposite": (OPPOSITES, _OPP_Q, "Do you know the opposite of {k}?", "The opposite of {k} is {v}."),
    "sound": (
        SOUNDS,
        ("What does a {k} say?", "What sound does a {k} make?", "Which sound does a {k} make?"),
        "Tell me what a {k} says.",
        "A {k} says {v}.",
    ),
    "young": (
        YOUNG,
        ("What is a young {k} called?", "What do you call a young {k}?", "What is a baby {k} called?"),
        "What is the name for a young {k}?",
        "A young {k} is called a {v}.",
    ),
    "colour": (
        COLOURS,
        ("What color is {k}?", "Which color is {k}?", "What is the color of {k}?", "Tell me the color of {k}."),
        "Which color does {k} have?",
        "{K} is {v}.",
    ),
    "plural": (
        PLURALS,
        ('What is the plural of "{k}"?', "What is the plural of {k}?", "Give the plural of {k}."),
        "Tell me the plural of {k}.",
        'The plural of "{k}" is "{v}".',
    ),
    "past": (
        PAST,
        ('What is the past tense of "{k}"?', "What is the past tense of {k}?", "Give the past tense of {k}."),
        "Tell me the past tense of {k}.",
        'The past tense of "{k}" is "{v}".',
    ),
}
SEQUENCES = {"day": DAYS, "month": MONTHS, "season": SEASONS}
AFTER = ("What {s} comes after {k}?", "Which {s} comes after {k}?", "What comes after {k}?", "Which {s} follows {k}?")
BEFORE = ("What {s} comes before {k}?", "Which {s} comes before {k}?", "What comes before {k}?")
LISTS = {
    "days of the week": DAYS,
    "months of the year": MONTHS,
    "seasons": SEASONS,
    "colors of the rainbow": ["red", "orange", "yellow", "green", "blue", "indigo", "violet"],
    "planets": ["Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune"],
}
LIST_Q = (
    "List the {k}.",
    "Name the {k}.",
    "What are the {k}?",
    "Tell me the {k}.",
    "Can you list the {k}?",
    "Say the {k}.",
)


def _fact(kind: str, key: str, wording: str) -> Turn:
    table, _, _, answer = KINDS[kind]
    question = wording.format(k=key)
    if key[0] in "aeiou":
        question = question.replace(f" a {key}", f" {with_article(key)}")
    return capital(question) if question[0] != "o" else question, answer.format(k=key, v=table[key], K=capital(key))


def _sequence(rng: random.Random, key_from: dict[str, list[str]] = SEQUENCES) -> Turn:
    name = rng.choice(list(key_from))
    items = key_from[name]
    i, step = rng.randrange(len(items)), rng.choice((1, 1, -1))
    wording = rng.choice(AFTER if step == 1 else BEFORE)
    neighbour = items[(i + step) % len(items)]
    return wording.format(
        s=name, k=items[i]
    ), f"{capital(neighbour)} comes {'after' if step == 1 else 'before'} {items[i]}."


def turn(rng: random.Random) -> Turn:
    """One question about a fact."""
    draw = rng.random()
    if draw < 0.2:
        return _sequence(rng)
    if draw < 0.27:
        name, items = rng.choice(list(LISTS.items()))
        return rng.choice(LIST_Q).format(k=name), f"The {name} are {', '.join(items[:-1])} and {items[-1]}."
    if draw < 0.33:
        question, found = rng.choice(list(NUMBERS.items()))
        return f"How many {question}?", found[1:] if found[0] == "!" else f"There are {found}."
    kind = rng.choices(list(KINDS), weights=[len(entry[0]) + 8 for entry in KINDS.values()])[0]
    table, wordings, _, _ = KINDS[kind]
    return _fact(kind, rng.choice(list(table)), rng.choice(wordings))


def document(rng: random.Random) -> str:
    """Plain text: several facts of one kind."""
    kind = rng.choice(list(KINDS))
    keys = rng.sample(list(KINDS[kind][0]), rng.randint(2, 8))
    return rng.choice((" ", "\n")).join(_fact(kind, key, "{k}")[1] for key in keys)


def held_out(rng: random.Random) -> list[Prompt]:
    """Known facts in wordings that training never uses."""
    prompts = []
    for kind, (table, _, wording, _) in KINDS.items():
        for key in rng.sample(list(table), {"capital": 8, "opposite": 7}.get(kind, 3)):
            question, answer = _fact(kind, key, wording)
            prompts.append(asks("facts", question, "exact", answer))
    for name in ("day", "month"):
        i = rng.randrange(len(SEQUENCES[name]) - 1)
        items = SEQUENCES[name]
        prompts.append(
            asks(
                "facts",
                f"Tell me which {name} comes after {items[i]}.",
                "exact",
                f"{items[i + 1]} comes after {items[i]}.",
            )
        )
    return prompts

"""Names, places and things that stories, letters, objects and tool calls share."""

from __future__ import annotations

import random

from .common import capital, made_up, word_list

NAMES = word_list("""Anna Ben Clara David Emma Felix Greta Henry Ida Jack Kate Leo Mia Noah Olivia Paul Rosa Sam
Tom Vera Will Zoe
Maria Lucas Nina Oscar Lily Max Ella Hugo Alice Bob Carol Peter Laura Simon""")
CITIES = word_list("""Paris Berlin Rome Madrid Lisbon London Dublin Vienna Bern Brussels Warsaw Athens Oslo
Stockholm Helsinki
Copenhagen Moscow Cairo Tokyo Boston Chicago Toronto Sydney""")
JOBS = [
    "teacher",
    "doctor",
    "baker",
    "farmer",
    "pilot",
    "nurse",
    "singer",
    "writer",
    "gardener",
    "engineer",
    "student",
    "cook",
]
HOBBIES = ["reading", "swimming", "music", "chess", "painting", "dancing", "hiking", "cooking", "football", "gardening"]
FOODS = ["apples", "bread", "cheese", "soup", "pizza", "rice", "cake", "pasta", "salad", "pancakes"]
PRODUCTS = [
    "lamp",
    "chair",
    "table",
    "phone",
    "book",
    "bag",
    "clock",
    "pen",
    "bike",
    "cup",
    "coat",
    "radio",
    "camera",
    "bottle",
]
COLOURS = ["red", "blue", "green", "black", "white", "yellow", "brown", "pink"]
ANIMALS = ["dog", "cat", "bird", "rabbit", "fox", "mouse", "frog", "horse", "duck", "bear"]
MORE_CITIES = [
    "New York",
    "San Francisco",
    "Los Angeles",
    "Buenos Aires",
    "Mexico City",
    "New Delhi",
    "Amsterdam",
    "Prague",
    "Munich",
]


def some_name(rng: random.Random) -> str:
    """A name, at times one that nobody has: copying must work for any name."""
    return capital(made_up(rng)) if rng.random() < 0.2 else rng.choice(NAMES)


def some_city(rng: random.Random) -> str:
    """A city, at times one that is on no map, for the same reason."""
    if rng.random() < 0.2:
        return capital(made_up(rng))
    return rng.choice(CITIES if rng.random() < 0.7 else MORE_CITIES)

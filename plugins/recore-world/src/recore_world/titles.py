"""Invented titles that tell the topic and the place in its chain: "The Quiet Harbour (sea, 12)"."""

from __future__ import annotations

import numpy as np
import polars as pl

from recore_world.draws import Ints

TOPICS: dict[str, tuple[str, str, str, str]] = {
    "sea": ("Harbour", "Lighthouse", "Tide", "Sailor"),
    "forest": ("Clearing", "Oak", "Fox", "Woodcutter"),
    "mountain": ("Summit", "Pass", "Glacier", "Shepherd"),
    "desert": ("Oasis", "Caravan", "Dune", "Well"),
    "city": ("Square", "Tower", "Alley", "Bridge"),
    "kitchen": ("Oven", "Recipe", "Baker", "Table"),
    "garden": ("Hedge", "Rose", "Gate", "Beehive"),
    "music": ("Violin", "Song", "Choir", "Drummer"),
    "railway": ("Station", "Signal", "Night Train", "Tunnel"),
    "winter": ("Snowfall", "Frozen Lake", "Sledge", "Fireside"),
    "moon": ("Crater", "Lander", "Eclipse", "Orbit"),
    "river": ("Ferry", "Mill", "Delta", "Fisherman"),
    "theatre": ("Curtain", "Prompter", "Mask", "Rehearsal"),
    "market": ("Stall", "Merchant", "Scale", "Bargain"),
    "school": ("Lesson", "Blackboard", "Pupil", "Playground"),
    "castle": ("Moat", "Knight", "Cellar", "Banner"),
    "island": ("Reef", "Castaway", "Volcano", "Palm"),
    "hospital": ("Nurse", "Ward", "Surgeon", "Corridor"),
    "library": ("Shelf", "Reader", "Catalogue", "Manuscript"),
    "circus": ("Acrobat", "Tent", "Juggler", "Parade"),
    "farm": ("Barn", "Harvest", "Plough", "Orchard"),
    "laboratory": ("Flask", "Formula", "Microscope", "Professor"),
    "football": ("Goalkeeper", "Derby", "Penalty", "Stadium"),
    "workshop": ("Anvil", "Clockmaker", "Lathe", "Apprentice"),
}
ADJECTIVES = (
    "Quiet", "Last", "Golden", "Hidden", "Broken", "Early", "Crooked", "Silver", "Patient", "Second", "Pale",
    "Distant", "Merry", "Narrow", "Restless", "Green", "Stubborn", "Empty", "Honest", "Lucky", "Old", "Sudden",
    "Blue",
)  # fmt: skip


def topic_names(topics: int) -> list[str]:
    """Names of the topics, counted up once the words run out: sea, …, workshop, sea 2, …"""
    names = list(TOPICS)
    return [
        names[k % len(names)] + (f" {k // len(names) + 1}" if k >= len(names) else "") for k in range(topics)
    ]


def titles(topic: Ints, number: Ints, topics: int) -> pl.Series:
    """Titles `(V,)` from topic and number in the topic's chain `(V,)`; no two are alike."""
    nouns = np.array([noun for words in TOPICS.values() for noun in words])
    # 23 adjectives and 4 nouns: the pair repeats after 92 numbers only.
    frame = pl.DataFrame(
        {
            "adjective": np.array(ADJECTIVES)[(7 * number + 5 * topic) % len(ADJECTIVES)],
            "noun": nouns[(topic % len(TOPICS)) * 4 + number % 4],
            "topic": np.array(topic_names(topics))[topic],
            "number": number,
        }
    )
    return frame.select(pl.format("The {} {} ({}, {})", "adjective", "noun", "topic", "number")).to_series()

"""Options: what is refused, in which words; and the light door."""

from __future__ import annotations

import subprocess
import sys

import attrs
import pytest
from recore_world import World, WorldOptions
from recore_world.plugin import recore_datasets
from recore_world.titles import TOPICS, topic_names

from recore import DataError, Facts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"users": 0}, "`users`: expected a number of at least 1, got 0"),
        ({"items": 1}, "`items`: expected a number of at least 2, got 1"),
        ({"slate": 0}, "`slate`: expected a number of at least 1, got 0"),
        ({"explore": 1.5}, "`explore`: expected a number from 0 to 1, got 1.5"),
        ({"births": -0.1}, "`births`: expected a number from 0 to 1, got -0.1"),
        ({"decay": 0.0}, "`decay`: expected a number above 0 and at most 1, got 0.0"),
        ({"decay": 1.2}, "`decay`: expected a number above 0 and at most 1, got 1.2"),
        ({"recency": -1.0}, "`recency`: expected a number from 0 to 1000, got -1.0"),
        ({"drift": float("nan")}, "`drift`: expected a number of at least 0, got nan"),
        ({"replica": -1}, "`replica`: expected a number of at least 0, got -1"),
    ],
)
def test_a_number_out_of_its_range_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011  (the text is asserted below)
        WorldOptions(**options)  # type: ignore[arg-type]  # what is tested
    assert str(error.value) == message


def test_what_does_not_fit_together_is_told_all_at_once() -> None:
    options = WorldOptions(explore=0.5, events=3.0, items=100, births=0.5, retirements=0.4)
    with pytest.raises(DataError) as error:
        World(options)
    o = options
    assert str(error.value) == (
        f"world: the shares of the exposure policy must sum to 1, got explore 0.5 + popular {o.popular:g} + "
        f"personal {o.personal:g} + sequels {o.sequels:g} = {0.5 + o.popular + o.personal + o.sequels:g}\n"
        "world: `shortest` ≤ `events` ≤ `longest`: expected, got 5, 3 and 200\n"
        "world: `longest`: without repeats a user with 200 events could run out of items, since only 10 are sure "
        "to be alive (items − births − retirements); take `longest` below 10, more items, or `repeats: true`"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            WorldOptions(explore=0.0, popular=0.0, personal=0.5, sequels=0.5),
            "`explore` + `popular`: expected at least 0.01, so that something can always be offered, got 0",
        ),
        (
            WorldOptions(births=0.6, retirements=0.4),
            "`births` 0.6 and `retirements` 0.4 of 800 items leave none that is always alive; lower them",
        ),
        (
            WorldOptions(days=1, longest=1440, items=9000),
            "`longest`: a user cannot have 1440 events in 1 days, a minute apart; take at most 1439",
        ),
    ],
)
def test_each_misfit_has_its_line(options: WorldOptions, message: str) -> None:
    assert options.problems(Facts()) == [message]


def test_the_defaults_fit_together() -> None:
    assert WorldOptions().problems(Facts()) == []
    assert WorldOptions().provides().order_across_users


def test_every_option_has_help() -> None:
    assert [field.name for field in attrs.fields(WorldOptions) if not field.metadata.get("help")] == []


def test_one_component_comes_through_the_door_and_it_is_light() -> None:
    (component,) = recore_datasets()
    assert (component.name, component.options) == ("world", WorldOptions)
    code = "import sys, recore_world.plugin; print(sorted({'torch', 'numpy', 'polars'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_a_world_needs_no_torch() -> None:
    code = (
        "import sys; from recore_world import World, WorldOptions; "
        "World(WorldOptions(users=5, items=60, longest=20)).log(); print('torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode != 0 or shown.stdout.strip() == "False", shown.stdout + shown.stderr


def test_topics_run_on_when_the_words_are_out() -> None:
    names = topic_names(2 * len(TOPICS) + 1)
    assert len(set(names)) == len(names)
    assert names[0] == "sea"
    assert names[len(TOPICS)] == "sea 2"
    assert names[-1] == "sea 3"

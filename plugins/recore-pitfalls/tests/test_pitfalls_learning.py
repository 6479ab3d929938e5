"""Each mistake of learning and measuring is caught by the check that names it, and by which others is known."""

from __future__ import annotations

import re

import attrs
import pytest
from attrs import evolve
from recore_pitfalls.learning_plugin import learning_mistakes

from recore import Component, Facts, LossClaims, Part
from recore.testing import PROFILES, case_for, failures, part_of, run_checks
from recore.testing.tiny import PARTS

FIRST = evolve(PROFILES["quick"], examples=12, draws=1_500, shrink=0)  # the first example that fails
MISTAKES = {component.name: (kind, component) for kind, component in learning_mistakes()}

# Name, other options: all checks of its kind that fail, the one that names the mistake, and words of what it says.
CAUGHT: dict[tuple[str, str], tuple[set[int], int, str]] = {
    ("padding-predicts", ""): ({1, 2, 3, 9, 10}, 9, "the loss is counted on padding"),
    ("predicts-itself", ""): ({1, 2, 3, 4}, 2, "and sees its token"),
    ("shifted-twice", ""): ({1, 3}, 1, "and do so 0 times"),
    ("last-column-asked", ""): ({10}, 10, "is asked from a row of token 0 (pad)"),
    ("padding-class", ""): ({13}, 13, "such as a class for padding"),
    ("mean-of-batch", ""): ({3, 5, 6}, 5, "a sum, never a mean"),
    ("log-q-added", ""): ({10}, 10, "`log_q` is subtracted"),
    ("padding-drawn", "zero"): ({6, 7}, 7, "some draw no item, such as padding"),
    ("padding-drawn", "id"): ({1, 6}, 1, "draws run from 0 to 10, V = 10"),
    ("own-items-drawn", ""): ({3}, 3, "excluded by `history`"),
    ("log-q-of-one-draw", ""): ({6, 7}, 7, "exp(log_q) sums to 1.00000, and K = 4"),
    ("last-batch-dropped", ""): ({1, 4}, 1, "stand in no batch"),
    ("order-kept", ""): ({6}, 6, "planned alike with two generators"),
    ("validation-left-out", ""): ({8}, 8, "the validation target of its user at row"),
    ("first-item-is-padding", ""): ({1, 3, 7, 8}, 3, "items are encoded as the special ids 0 (pad)"),
    ("ties-won", ""): ({9}, 9, "ties went the model's way"),
    ("mean-of-blocks", ""): ({3}, 3, "in another order, three a block"),
}


def sound(kind: str, name: str) -> Part:
    """The kit's own part of the kind; of losses the one that corrects where the mistake is about that."""
    return PARTS[kind][1 if name == "log-q-added" else 0]


def made(name: str, form: str = "", inner: Part | None = None) -> Part:
    """A mistake around a sound part."""
    kind, component = MISTAKES[name]
    around = attrs.fields(component.options)[0].name
    options = {around: inner or sound(kind, name)} | ({"form": form} if form else {})
    return part_of(kind, component, "recore-pitfalls", component.options(**options))


def test_every_mistake_is_in_the_table() -> None:
    assert {name for name, _ in CAUGHT} == set(MISTAKES)
    assert len(MISTAKES) == 16
    assert len(CAUGHT) == 17


@pytest.mark.parametrize(("name", "form"), CAUGHT)
def test_a_mistake_is_caught_by_the_check_that_names_it(name: str, form: str) -> None:
    failing, naming, words = CAUGHT[name, form]
    part = made(name, form)
    results = {int(result.name.split()[1]): result for result in run_checks(part, profile=FIRST)}
    found = failures(results.values())
    assert {int(result.name.split()[1]) for result in found} == failing, [result.measured for result in found]
    said = results[naming].measured
    assert said.startswith(f"{part.kind} {naming}: {results[naming].sentence} But ")
    # Drawn ids vary: `from 1 to 10` is the same mistake.
    assert words.replace("from 0", "from 1") in said or words in said


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_claims_what_the_sound_part_claims(name: str) -> None:
    kind, _ = MISTAKES[name]
    if name == "own-items-drawn":
        assert made(name).claims.exclude == "history"
        assert made(name).provides().exclude == "history"
    else:
        assert made(name).claims == sound(kind, name).claims


CITED = re.compile(r"[\w.-]+/[\w.-]+(, issues? \d+|, pull request \d+|, `[\w./]+`|, [\w./]+\.py)")


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_says_where_it_was_seen_and_what_catches_it(name: str) -> None:
    kind, component = MISTAKES[name]
    text = " ".join(component.options.__doc__.split())
    assert "Seen in: " in text
    assert CITED.search(text.partition("Seen in: ")[2])
    assert CITED.search(component.source)
    assert component.source.partition(",")[0] in text
    assert component.summary.startswith("Mistake: ")
    for (other, form), (_, naming, _) in CAUGHT.items():
        if other == name:
            caught = re.search(r"Caught by (\w+) (\d+)(?: \(`id`\) or (\d+) \(`zero`\))?", text)
            assert caught is not None
            assert caught[1] == kind
            assert str(naming) == caught[3 if form == "zero" else 2]


@pytest.mark.parametrize(
    ("name", "inner", "words"),
    [
        ("padding-class", PARTS["loss"][2], "needs a loss over all items"),
        ("log-q-added", PARTS["loss"][0], "needs a loss that corrects by log_q"),
        ("own-items-drawn", "excluding", "set `exclude: none`"),
        ("log-q-of-one-draw", "silent", "needs a sampler with an exact log_q"),
    ],
)
def test_a_mistake_without_occasion_is_refused(name: str, inner: Part | str, words: str) -> None:
    if isinstance(inner, str):
        inner = made("own-items-drawn")
    part = made(name, inner=inner)
    assert words in "; ".join(part.problems(Facts()))
    with pytest.raises(ValueError, match=words):
        case_for(part, FIRST)


def test_components_are_light_and_distinct() -> None:
    assert len({component.name for component in map(_component, MISTAKES)}) == len(MISTAKES)
    assert all(
        component.factory.startswith("recore_pitfalls.learning_") for component in map(_component, MISTAKES)
    )
    assert isinstance(made("padding-class").claims, LossClaims)


def _component(name: str) -> Component:
    return MISTAKES[name][1]

"""Each check of tokenizers, splits and objectives fails with its own sentence on a planted fault."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from attrs import evolve

from recore.contracts import Changes, Holdout, RowMap, Special
from recore.ragged import Targets
from recore.testing import CHECKS, PROFILES, case_for, made_part
from recore.testing.tiny.data import TinySplit, TinyTokenizer
from recore.testing.tiny.learning import TinyObjective

COUNTER = itertools.count()
FIRST = evolve(
    PROFILES["quick"], examples=12, draws=1_500, shrink=0
)  # the first example that fails, not the smallest


# --- Tokenizers --------------------------------------------------------------------------------------------


def items_of(context):
    return sorted(context.interactions.events["item"].unique().to_list())


class AsText(TinyTokenizer):
    def decode(self, ids):
        return super().decode(ids).cast(pl.String)


class OffByOne(TinyTokenizer):
    def decode(self, ids):
        return super().decode(np.minimum(np.asarray(ids) + 1, self.tokens - 1))


class IdsFromOne(TinyTokenizer):
    def item_ids(self, items):
        return super().item_ids(items) + 1


class UnknownTrains(TinyTokenizer):
    @property
    def specials(self):
        return [Special("pad", 0), Special("unknown", 1, trainable=True)]


class SpecialsShareARow(TinyTokenizer):
    @property
    def specials(self):
        return [Special("pad", 0), Special("unknown", 0)]


class UnknownIsPad(TinyTokenizer):
    def encode(self, items):
        tokens = super().encode(items)
        return np.where(tokens == 1, 0, tokens)


class ForgetsRetired(TinyTokenizer):
    def save_pretrained(self, folder):
        super().save_pretrained(folder)
        Path(folder, "tiny.json").write_text(json.dumps({"items": self._items, "retired": []}))


class LoadsAsText(TinyTokenizer):
    def save_pretrained(self, folder):
        items = [str(item) for item in self._items]
        Path(folder, "tiny.json").write_text(json.dumps({"items": items, "retired": self._retired}))


class DrawnOrder(TinyTokenizer):
    def __init__(self, items, retired=()):
        turn = next(COUNTER) % len(items)
        super().__init__([*items[turn:], *items[:turn]], retired)


class ClosesUp(TinyTokenizer):
    """Removed items lose their place, and others move up."""

    def resize(self, changes: Changes) -> RowMap:
        old = self.tokens
        self.__init__([i for i in self._items if i not in changes.removed] + list(changes.added))
        rows = np.arange(self.tokens)
        return RowMap(np.where(rows < old, rows, -1), self.retired)


class Reuses(TinyTokenizer):
    """A new item takes the place of a removed one."""

    def resize(self, changes: Changes) -> RowMap:
        added = list(changes.added)
        moved = super().resize(Changes(removed=changes.removed))
        while added and self._retired:
            place = self._retired.pop(0)
            self._items[place] = added.pop(0)
        self._ids = {item: at for at, item in enumerate(self._items) if at not in self._retired}
        return super().resize(Changes(added=added)) if added else moved


class NewRowsNotSaid(TinyTokenizer):
    def resize(self, changes: Changes) -> RowMap:
        moved = super().resize(changes)
        return RowMap(np.where(moved.old < 0, 3, moved.old), moved.retired)


class RetiredNotSaid(TinyTokenizer):
    def resize(self, changes: Changes) -> RowMap:
        return RowMap(super().resize(changes).old, np.zeros(0, dtype=np.int64))


# --- Splits ------------------------------------------------------------------------------------------------


class Changed(TinySplit):
    """What `change(parts, log)` makes of a sound split."""

    def __init__(self, change):
        self.change = change

    def parts(self, interactions):
        return self.change(super().parts(interactions), interactions)


def moved(held: Holdout, **changes) -> Holdout:
    return Holdout(**{"target": held.target, "start": held.start, "stop": held.stop, **changes})


def with_target(parts, log):
    return evolve(parts, test=moved(parts.test, stop=parts.test.stop + 1))


def from_the_first_row(parts, log):
    return evolve(parts, test=moved(parts.test, start=parts.test.start * 0))


def trains_on_validation(parts, log):
    return evolve(parts, train=np.sort(np.append(parts.train, parts.validation.target[:1])))


def drops_short_users(parts, log):
    short = np.repeat(np.diff(log.offsets()) < 3, np.diff(log.offsets()))
    return evolve(parts, train=parts.train[~short[parts.train]], counts={})


def descending(parts, log):
    return evolve(parts, train=parts.train[::-1])


def trains_after_the_target(parts, log):
    """Target and last training event of each user change places."""
    last = parts.validation.target - 1
    train = np.sort(np.append(np.setdiff1d(parts.train, last), parts.test.target))
    return evolve(parts, train=train, test=moved(parts.validation, target=last, start=last, stop=last))


def validates_after_the_test(parts, log):
    return evolve(
        parts,
        validation=moved(parts.test),
        test=moved(parts.validation),
    )


def by_item(parts, log):
    """Who is tested hangs on what the items are called."""
    tested = (log.events["item"].cast(pl.String).hash(seed=3) % 2 == 0).to_numpy()[parts.test.target]
    test = Holdout(*(getattr(parts.test, name)[tested] for name in ("target", "start", "stop")))
    train = np.sort(np.append(parts.train, parts.test.target[~tested]))
    return evolve(parts, test=test, train=train)


def by_turn(parts, log):
    turn = next(COUNTER) % 2
    return evolve(parts, test=moved(parts.test, start=parts.test.start + turn))


# --- Objectives --------------------------------------------------------------------------------------------


class Objective(TinyObjective):
    """What `change(inputs, targets)` makes of a sound one."""

    def __init__(self, change):
        self.change = change

    def training(self, histories, generator, target_from=None):
        return self.change(*super().training(histories, generator, target_from))


def rows(targets, chosen):
    return Targets(targets.where[chosen], targets.id[chosen], targets.weight[chosen])


def loses_the_last(inputs, targets):
    return inputs, rows(targets, torch.arange(max(0, len(targets) - 1)))


def twice(inputs, targets):
    every = torch.arange(len(targets))
    return inputs, rows(targets, torch.cat([every, every[:1]]))


class SeesTheTarget(TinyObjective):
    def training(self, histories, generator, target_from=None):
        inputs, targets = super().training(histories, generator, target_from)
        return histories, evolve(targets, where=targets.where + inputs.sequence[targets.where] + 1)


class ItemColumnShows(TinyObjective):
    """Tokens are right, and the item column is that of the next event."""

    def training(self, histories, generator, target_from=None):
        inputs, targets = super().training(histories, generator, target_from)
        shown = inputs["item"].clone()
        shown[targets.where] = targets.id
        return inputs.with_columns(item=shown), targets


class ShortQuery(TinyObjective):
    def query(self, histories):
        view = histories.last_events(2)
        return view, view.offsets[1:] - 1


class IgnoresTargetFrom(TinyObjective):
    def training(self, histories, generator, target_from=None):
        return super().training(histories, generator)


class OffByOneTargetFrom(TinyObjective):
    def training(self, histories, generator, target_from=None):
        return super().training(histories, generator, None if target_from is None else target_from - 1)


class UnknownTargets(TinyObjective):
    def training(self, histories, generator, target_from=None):
        known = histories["item"].clamp(min=0)
        inputs, targets = super().training(histories.with_columns(item=known), generator, target_from)
        after = targets.where + inputs.sequence[targets.where] + 1
        return inputs, evolve(targets, id=histories["item"][after])


class ShortReach(TinyObjective):
    def reach(self, width):
        return width, width


class LongReach(TinyObjective):
    def reach(self, width):
        return width + 1, width + 1


class GlobalRandom(TinyObjective):
    def training(self, histories, generator, target_from=None):
        inputs, targets = super().training(histories, generator, target_from)
        return inputs, rows(targets, torch.randperm(len(targets)))


class QueryReversed(TinyObjective):
    def query(self, histories):
        inputs, where = super().query(histories)
        return inputs, where.flip(0)


class QueryOfTheFirst(TinyObjective):
    def query(self, histories):
        inputs, where = super().query(histories)
        return inputs, where[:1]


def tokenizer(kind):
    return made_part("tokenizer", lambda context: kind(items_of(context)))


def split(change):
    return made_part("split", lambda _: Changed(change))


def objective(kind, *arguments):
    return made_part("objective", lambda _: kind(*arguments))


FAULTS = [
    ("tokenizer", 1, "items of type Int64 came back as String", tokenizer(AsText)),
    ("tokenizer", 1, "came back as", tokenizer(OffByOne)),
    ("tokenizer", 2, "items have the item ids [1", tokenizer(IdsFromOne)),
    ("tokenizer", 3, "'unknown' trains", tokenizer(UnknownTrains)),
    ("tokenizer", 3, "the special rows have the ids [0, 0]", tokenizer(SpecialsShareARow)),
    ("tokenizer", 4, "`unknown` is 1", tokenizer(UnknownIsPad)),
    ("tokenizer", 5, "] became []", tokenizer(ForgetsRetired)),
    ("tokenizer", 5, "items were Int64 and are String", tokenizer(LoadsAsText)),
    ("tokenizer", 6, "the items were [", tokenizer(DrawnOrder)),
    ("tokenizer", 7, "which", tokenizer(ClosesUp)),
    ("tokenizer", 7, "has or had", tokenizer(Reuses)),
    ("tokenizer", 8, "came from", tokenizer(NewRowsNotSaid)),
    ("tokenizer", 8, "are not among the retired", tokenizer(RetiredNotSaid)),
    ("split", 1, "goes on to row", split(with_target)),
    ("split", 1, "but its user at", split(from_the_first_row)),
    ("split", 2, "stand in more than one part", split(trains_on_validation)),
    ("split", 3, "and 0 are counted", split(drops_short_users)),
    ("split", 4, "training rows are [", split(descending)),
    ("split", 5, "is trained on up to row", split(trains_after_the_target)),
    ("split", 6, "holds the test target", split(validates_after_the_test)),
    ("split", 7, "relabelled gave other rows", split(by_item)),
    ("split", 7, "again gave other rows", split(by_turn)),
    ("objective", 1, "and do so 0 times", objective(Objective, loses_the_last)),
    ("objective", 1, "2 times, 1 were expected", objective(Objective, twice)),
    ("objective", 2, "and sees its token", objective(SeesTheTarget)),
    ("objective", 2, "and sees the items", objective(ItemColumnShows)),
    ("objective", 3, "and a query after the same history", objective(ShortQuery)),
    ("objective", 4, "are targets", objective(IgnoresTargetFrom)),
    ("objective", 4, "with targets from place 2 the earlier items", objective(OffByOneTargetFrom)),
    ("objective", 5, "are targets, V = 10", objective(UnknownTargets)),
    ("objective", 6, "reach is 2 in training, but 3 events take 2 rows", objective(ShortReach)),
    ("objective", 6, "3 events became 3 query rows of 2", objective(LongReach)),
    ("objective", 7, "torch's default generator was advanced", objective(GlobalRandom)),
    ("objective", 8, "is asked about as", objective(QueryReversed)),
    ("objective", 8, "histories are asked about from 1 rows", objective(QueryOfTheFirst)),
]


@pytest.mark.parametrize(
    ("kind", "number", "words", "part"), FAULTS, ids=[f"{f[0]}-{f[1]}-{n}" for n, f in enumerate(FAULTS)]
)
def test_fault_is_caught_by_its_own_sentence(kind, number, words, part) -> None:
    check = CHECKS[kind][number - 1]
    with pytest.raises(AssertionError) as caught:
        check(part, case_for(part, FIRST))
    assert str(caught.value).startswith(f"{kind} {number}: {check.sentence} But ")
    assert words in str(caught.value)
    assert "`this:made`" in str(caught.value)


def test_every_check_has_a_fault() -> None:
    for kind in ("tokenizer", "split", "objective"):
        assert {f[1] for f in FAULTS if f[0] == kind} == {check.number for check in CHECKS[kind]}

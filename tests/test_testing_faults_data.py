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

from recore import Facts
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


class OneMore(TinyTokenizer):
    """V counts an item that is not there."""

    @property
    def items(self):
        return super().items + 1


class Reversed(TinyTokenizer):
    def items_of(self, item_ids):
        return super().items_of(item_ids).reverse()

    def decode(self, ids):
        return super().items_of(np.asarray(ids) - 3)


class MaskBeyondTokens(TinyTokenizer):
    @property
    def specials(self):
        return [*super().specials[:2], Special("mask", 1000, trainable=True)]


class NoUnknown(TinyTokenizer):
    @property
    def specials(self):
        return [Special("pad", 0)]


class TokensShort(TinyTokenizer):
    @property
    def tokens(self):
        return super().tokens - 1


class FirstItemIsPad(TinyTokenizer):
    def encode(self, items):
        tokens = super().encode(items)
        return np.where(tokens == 3, 0, tokens)


class PadDecodes(TinyTokenizer):
    def decode(self, ids):
        return super().decode(np.maximum(np.asarray(ids), 3))


class Guesses(TinyTokenizer):
    unknown = "guess"


class UnknownIsFirst(TinyTokenizer):
    def item_ids(self, items):
        return np.maximum(super().item_ids(items), 0)


class OneUnknownAllUnknown(TinyTokenizer):
    def item_ids(self, items):
        ids = super().item_ids(items)
        return ids if (ids >= 0).all() else np.full_like(ids, -1)


class Loaded(TinyTokenizer):
    """What `change(self)` does to a tokenizer that was loaded."""

    change = staticmethod(lambda loaded: None)

    @classmethod
    def from_pretrained(cls, folder):
        loaded = super().from_pretrained(folder)
        cls.change(loaded)
        return loaded


class PolicyChanges(Loaded):
    change = staticmethod(lambda loaded: setattr(loaded, "unknown", "drop"))


class SpecialsChange(Loaded):
    late = False
    change = staticmethod(lambda loaded: setattr(loaded, "late", True))

    @property
    def specials(self):
        return [Special("pad", 0, trainable=self.late), *super().specials[1:]]


class TokensChange(Loaded):
    late = False
    change = staticmethod(lambda loaded: setattr(loaded, "late", True))

    def encode(self, items):
        return super().encode(items)[:: -1 if self.late else 1]


class ForgetsOthers(TinyTokenizer):
    """After something was removed the last item that stays has no id."""

    def resize(self, changes):
        moved = super().resize(changes)
        if changes.removed and self._ids:
            self._ids.popitem()
        return moved

    def item_ids(self, items):
        return np.asarray([self._ids.get(item, -1) for item in items.to_list()], dtype=np.int64)


class DecodesOffAfterResize(TinyTokenizer):
    late = False

    def resize(self, changes):
        self.late = True
        return super().resize(changes)

    def decode(self, ids):
        return super().decode(np.minimum(np.asarray(ids) + self.late, self.tokens - 1))


class Resized(TinyTokenizer):
    """What `change(map)` makes of the map of a resize."""

    change = staticmethod(lambda moved: moved)

    def resize(self, changes):
        return self.change(super().resize(changes))


class MapShort(Resized):
    change = staticmethod(lambda moved: RowMap(moved.old[:-1], moved.retired))


class MapBeyond(Resized):
    change = staticmethod(lambda moved: RowMap(moved.old + 1, moved.retired))


class MapTurned(Resized):
    change = staticmethod(
        lambda moved: RowMap(np.where(moved.old > 3, moved.old - 1, moved.old), moved.retired)
    )


class RetiredDescending(TinyTokenizer):
    @property
    def retired(self):
        return super().retired[::-1] if len(self._retired) < 2 else super().retired[::-1].copy()

    def resize(self, changes):
        moved = super().resize(changes)
        return RowMap(moved.old, np.sort(moved.retired))


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


def backwards(parts, log):
    """A test history ends before it starts."""
    return evolve(parts, test=moved(parts.test, stop=parts.test.start - 1))


def past_the_end(parts, log):
    return evolve(parts, train=np.append(parts.train, len(log)))


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


def forgets_validation(parts, log):
    """Test histories are those of validation."""
    return evolve(parts, test=moved(parts.test, stop=parts.validation.stop))


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


class PaddingTargets(TinyObjective):
    """Each history has a row of padding at its end, which predicts its last item again."""

    def training(self, histories, generator, target_from=None):
        inputs, targets = super().training(histories, generator, target_from)
        full = inputs.lengths > 0
        ends = inputs.offsets[1:][full] - 1
        rows = torch.cat([torch.arange(inputs.events), ends]).sort(stable=True).values
        added = torch.zeros(len(rows), dtype=torch.bool)
        added[ends + torch.arange(len(ends)) + 1] = True
        offsets = inputs.offsets + torch.cat([torch.zeros(1).long(), full.long().cumsum(0)])
        wide = inputs.take(rows, offsets, inputs.index)
        wide = wide.with_columns(
            token=wide["token"].masked_fill(added, 0), item=wide["item"].masked_fill(added, -1)
        )
        moved = (~added).nonzero().squeeze(-1)[targets.where]
        last = histories["item"][histories.offsets[1:][full] - 1]
        known = last >= 0
        more = added.nonzero().squeeze(-1)[known]
        return wide, Targets(
            torch.cat([moved, more]), torch.cat([targets.id, last[known]]), torch.ones(len(moved) + len(more))
        )


class TargetsOfTheNext(TinyObjective):
    """Each history is trained on the targets of the one beside it."""

    def training(self, histories, generator, target_from=None):
        inputs, targets = super().training(histories, generator, target_from)
        return inputs, evolve(targets, id=targets.id.roll(1))


class QueryPadded(TinyObjective):
    """All histories are as long as the longest; the last column asks."""

    def query(self, histories):
        lengths = histories.lengths
        width = torch.full_like(lengths, int(lengths.max()))
        sequence = torch.repeat_interleave(torch.arange(len(lengths)), width)
        place = torch.arange(len(sequence)) - sequence * int(lengths.max())
        rows = histories.offsets[sequence] + torch.minimum(place, lengths[sequence] - 1)
        padding = place >= lengths[sequence]
        offsets = torch.arange(len(lengths) + 1) * int(lengths.max())
        wide = histories.take(rows, offsets, histories.index)
        event = wide["event"].masked_fill(padding, -1)
        return wide.with_columns(token=wide["token"].masked_fill(padding, 0), event=event), wide.last


class Hidden(TinyObjective):
    """Sound: one event of each history is hidden behind a mask and predicted; a query appends a mask."""

    lowest, ask, least = 0, 2, True

    def reach(self, width):
        return width, width - 1

    def training(self, histories, generator, target_from=None):
        since = torch.zeros(len(histories)).long() if target_from is None or not self.least else target_from
        may = (histories["item"] >= 0) & (histories.place >= since[histories.sequence].clamp(min=self.lowest))
        drawn = torch.rand(histories.events, generator=generator).masked_fill(~may, -1)
        best = torch.full((len(histories),), -0.5).scatter_reduce(0, histories.sequence, drawn, "amax")
        where = (drawn == best[histories.sequence]).nonzero().squeeze(-1)
        token, item = histories["token"].clone(), histories["item"].clone()
        ids = item[where]
        token[where], item[where] = 2, -1
        return histories.with_columns(token=token, item=item), Targets(where, ids, torch.ones(len(where)))

    def query(self, histories):
        order = torch.cat([torch.arange(histories.events), histories.last])
        rows = torch.cat([histories.sequence, torch.arange(len(histories))]).argsort(stable=True)
        offsets = histories.offsets + torch.arange(len(histories) + 1)
        inputs = histories.take(order[rows], offsets, histories.index)
        changed = {name: inputs[name].clone() for name in ("token", "item", "event")}
        for name, value in (("token", self.ask), ("item", -1), ("event", -1)):
            changed[name][inputs.last] = value
        return inputs.with_columns(**changed), inputs.last


class HiddenTooEarly(Hidden):
    least = False


class NeverTheFirst(Hidden):
    lowest = 1


class AsksFromPadding(Hidden):
    ask = 0


class QueryBeyond(TinyObjective):
    def query(self, histories):
        inputs, where = super().query(histories)
        return inputs, where + inputs.events


class EveryOtherTime(TinyObjective):
    """Drops a pair at each second call."""

    calls = 0

    def training(self, histories, generator, target_from=None):
        self.calls += 1
        inputs, targets = super().training(histories, generator, target_from)
        return inputs, rows(targets, torch.arange(max(0, len(targets) - self.calls // 3 % 2)))


class ByObject(TinyObjective):
    """Drops a pair in every second object."""

    def __init__(self):
        self.turn = next(COUNTER) % 2

    def training(self, histories, generator, target_from=None):
        inputs, targets = super().training(histories, generator, target_from)
        return inputs, rows(targets, torch.arange(max(0, len(targets) - self.turn)))


class ShortAmongOthers(TinyObjective):
    """A batch of several drops the first pair."""

    def training(self, histories, generator, target_from=None):
        inputs, targets = super().training(histories, generator, target_from)
        first = 1 if len(histories) > 1 else 0
        return inputs, rows(targets, torch.arange(first, max(first, len(targets))))


def tokenizer(kind):
    return made_part("tokenizer", lambda context: kind(items_of(context)))


def split(change):
    return made_part("split", lambda _: Changed(change))


def objective(kind, *arguments, facts=None):
    return made_part("objective", lambda _: kind(*arguments), None, facts)


SEES_ALL = Facts(causal=False)


FAULTS = [
    ("tokenizer", 1, "items of type Int64 came back as String", tokenizer(AsText)),
    ("tokenizer", 1, "came back as", tokenizer(OffByOne)),
    ("tokenizer", 2, "items have the item ids [1", tokenizer(IdsFromOne)),
    ("tokenizer", 2, "`items` is", tokenizer(OneMore)),
    ("tokenizer", 2, "came back as [", tokenizer(Reversed)),
    ("tokenizer", 3, "1000], but `tokens` is", tokenizer(MaskBeyondTokens)),
    ("tokenizer", 3, "there is no 'unknown'", tokenizer(NoUnknown)),
    ("tokenizer", 3, "reach `tokens`", tokenizer(TokensShort)),
    ("tokenizer", 3, "items are encoded as the special ids 0 (pad)", tokenizer(FirstItemIsPad)),
    ("tokenizer", 3, "special rows decode to [", tokenizer(PadDecodes)),
    ("tokenizer", 4, "`unknown` is 'guess'", tokenizer(Guesses)),
    ("tokenizer", 4, "have the item ids [0, 0, 0]", tokenizer(UnknownIsFirst)),
    ("tokenizer", 4, "has item id -1 among unknown ones", tokenizer(OneUnknownAllUnknown)),
    ("tokenizer", 5, "`unknown` was keep and is drop", tokenizer(PolicyChanges)),
    ("tokenizer", 5, "the special rows were", tokenizer(SpecialsChange)),
    ("tokenizer", 5, "`encode` of", tokenizer(TokensChange)),
    ("tokenizer", 7, "lost its item id", tokenizer(ForgetsOthers)),
    ("tokenizer", 7, "were removed", tokenizer(DecodesOffAfterResize)),
    ("tokenizer", 8, "rows, `tokens` is", tokenizer(MapShort)),
    ("tokenizer", 8, "old rows", tokenizer(MapBeyond)),
    ("tokenizer", 8, ", but were [", tokenizer(MapTurned)),
    ("tokenizer", 8, "`retired` is [", tokenizer(RetiredDescending)),
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
    ("split", 1, "history runs from row", split(backwards)),
    ("split", 2, "of a log of", split(past_the_end)),
    ("split", 2, "stand in more than one part", split(trains_on_validation)),
    ("split", 3, "and 0 are counted", split(drops_short_users)),
    ("split", 4, "training rows are [", split(descending)),
    ("split", 5, "is trained on up to row", split(trains_after_the_target)),
    ("split", 6, "holds the test target", split(validates_after_the_test)),
    ("split", 7, "relabelled gave other rows", split(by_item)),
    ("split", 7, "again gave other rows", split(by_turn)),
    ("split", 8, "is left out of it", split(forgets_validation)),
    ("objective", 1, "and do so 0 times", objective(Objective, loses_the_last)),
    ("objective", 1, "2 times, 1 were expected", objective(Objective, twice)),
    ("objective", 1, "are targets and should not be", objective(HiddenTooEarly, facts=SEES_ALL)),
    ("objective", 1, "were never a target", objective(NeverTheFirst, facts=SEES_ALL)),
    (
        "objective",
        3,
        "queries ask from {(0,)}, training from {(2,)}",
        objective(AsksFromPadding, facts=SEES_ALL),
    ),
    ("objective", 5, "rows predict", objective(Objective, lambda x, t: (x, evolve(t, id=t.id[1:])))),
    (
        "objective",
        5,
        "input rows predict",
        objective(Objective, lambda x, t: (x, evolve(t, where=t.where + x.events))),
    ),
    (
        "objective",
        5,
        "the weights are [-1",
        objective(Objective, lambda x, t: (x, evolve(t, weight=-t.weight))),
    ),
    (
        "objective",
        5,
        "other numbers of times",
        objective(Objective, lambda x, t: (x, evolve(t, time=t.id[1:]))),
    ),
    ("objective", 7, "the same generator gave other pairs", objective(EveryOtherTime)),
    ("objective", 7, "another object gave other pairs", objective(ByObject)),
    ("objective", 8, "ask", objective(QueryBeyond)),
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
    ("objective", 9, "the loss is counted on padding", objective(PaddingTargets)),
    ("objective", 9, "predicts item", objective(TargetsOfTheNext)),
    ("objective", 10, "from a row of token 0 (pad)", objective(QueryPadded)),
    ("objective", 10, "trains on", objective(ShortAmongOthers)),
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


def test_what_the_faults_of_drawn_targets_are_made_of_is_sound() -> None:
    part = objective(Hidden, facts=SEES_ALL)
    for check in CHECKS["objective"]:
        check(part, case_for(part, evolve(FIRST, examples=3)))

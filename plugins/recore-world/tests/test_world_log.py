"""The log: the same whoever asks and however it is cut, whole, in order, and free of the future."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from recore_world import World, WorldOptions, exposure
from recore_world.activity import BEGINNING, DAY
from recore_world.choice import Choice
from recore_world.dataset import build
from recore_world.items import _chains

from recore import Context, DataError
from recore.data import Interactions

SMALL = WorldOptions(users=120, items=150, events=15.0, longest=50, slate=8, days=40, topics=6)


@pytest.fixture(scope="module")
def world() -> World:
    return World(SMALL)


@pytest.fixture(scope="module")
def log(world: World) -> pl.DataFrame:
    return world.log()


def load(options: WorldOptions) -> Interactions:
    return build(options, Context()).load(Context())


def test_the_same_options_give_the_same_log_in_a_fresh_process() -> None:
    code = (
        "from recore import Context; from recore_world import WorldOptions; "
        "from recore_world.dataset import build; "
        f"print(build({SMALL!r}, Context()).load(Context(seed=7)).fingerprint())"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == load(SMALL).fingerprint()


def test_another_seed_gives_another_world_and_the_seed_of_the_run_does_not() -> None:
    prints = {
        load(evolve(SMALL, seed=seed, replica=replica)).fingerprint()
        for seed, replica in ((0, 0), (1, 0), (0, 1))
    }
    assert len(prints) == 3
    runs = {build(SMALL, Context(seed=s)).load(Context(seed=s)).fingerprint() for s in (0, 1)}
    assert len(runs) == 1


def test_a_replica_has_other_users_in_the_same_catalogue(world: World, log: pl.DataFrame) -> None:
    other = World(evolve(SMALL, replica=1))
    assert_frame_equal(other.items(), world.items())
    assert (other.counts != world.counts).any()
    both = min(len(other), len(world))
    same = (other.log()["item"].head(both) == log["item"].head(both)).sum()
    assert same < 0.2 * both


@settings(deadline=None, max_examples=7)
@given(block=st.integers(1, 130))
def test_blocks_of_any_size_give_the_same_log_to_the_last_bit(block: int) -> None:
    options = evolve(SMALL, users=40)
    assert World(options).log(block=block).equals(World(options).log())


@settings(deadline=None, max_examples=12)
@given(users=st.lists(st.integers(0, 119), min_size=1, max_size=6, unique=True))
def test_a_user_has_the_same_events_alone_and_among_all(users: list[int]) -> None:
    world = World(SMALL)
    whole = world.log()
    expected = pl.concat(whole.filter(pl.col("user") == f"u{user}") for user in users)
    assert world.log(users).equals(expected)


@settings(deadline=None, max_examples=8)
@given(steps=st.integers(1, 60))
def test_the_first_events_do_not_depend_on_later_ones(steps: int) -> None:
    world = World(SMALL)
    place = pl.int_range(pl.len()).over("user")
    assert world.log(steps=steps).equals(world.log().filter(place < steps))


def test_items_of_the_future_reach_no_earlier_event(world: World, log: pl.DataFrame) -> None:
    """Topics, popularity and creators of what is born from day 20 on are changed: before, nothing moves."""
    later = np.flatnonzero(world.catalogue.born >= 20)
    other = World(SMALL)
    catalogue = evolve(
        world.catalogue,
        topic=world.catalogue.topic.copy(),
        copies=world.catalogue.copies.copy(),
        retired=world.catalogue.retired.copy(),
    )
    catalogue.topic[later] = (catalogue.topic[later] + 1) % SMALL.topics
    catalogue.copies[later] += 5
    catalogue.retired[later] = SMALL.days
    sequel, number = _chains(catalogue.topic)
    other.catalogue = evolve(catalogue, sequel=sequel, number=number)
    other.exposure = exposure.make(SMALL, other.catalogue)
    other.choice = Choice(SMALL, other.catalogue)
    before = pl.col("time") < BEGINNING + 20 * DAY
    assert other.log().filter(before).equals(log.filter(before))
    assert not other.log().equals(log)


def test_items_are_met_between_birth_and_retirement_only(world: World, log: pl.DataFrame) -> None:
    table = world.items()
    assert (table["born"] > BEGINNING).mean() == pytest.approx(SMALL.births, abs=0.01)
    assert 0 < table["retired"].is_not_null().sum() <= SMALL.items * SMALL.retirements
    met = log.join(table, on="item")
    assert (met["time"] >= met["born"]).all()
    assert (met["time"] < met["retired"]).drop_nulls().all()
    assert met.filter(pl.col("retired").is_not_null()).height > 20


def test_users_meet_an_item_once_unless_repeats_are_wanted(log: pl.DataFrame) -> None:
    assert not log.select(pl.struct("user", "item").is_duplicated().any()).item()
    again = World(evolve(SMALL, repeats=True, boredom=0.0)).log()
    assert again.select(pl.struct("user", "item").is_duplicated().sum()).item() > 0.05 * len(log)


def test_creators_are_users_who_also_take_part(world: World, log: pl.DataFrame) -> None:
    creators = set(world.items()["creator"])
    assert creators <= set(log["user"].unique())
    assert 1 < len(creators) <= round(SMALL.users * SMALL.creators)
    assert (
        log.join(world.items(), on="item").select((pl.col("creator") == pl.col("creator_right")).all()).item()
    )
    made = dict(world.users().iter_rows())
    assert sum(made.values()) == SMALL.items
    assert {user for user, number in made.items() if number} == creators


def test_times_rise_within_users_and_lie_within_the_world(log: pl.DataFrame) -> None:
    assert log.select((pl.col("time").diff().over("user").drop_nulls() >= 1).all()).item()
    assert log["time"].is_between(BEGINNING, BEGINNING + SMALL.days * DAY, closed="left").all()


def test_a_short_world_squeezes_its_users_without_ties() -> None:
    short = World(evolve(SMALL, days=2, births=0.0, retirements=0.0)).log()
    assert short.select((pl.col("time").diff().over("user").drop_nulls() >= 1).all()).item()
    assert short["time"].is_between(BEGINNING, BEGINNING + 2 * DAY, closed="left").all()


@settings(deadline=None, max_examples=20)
@given(
    shortest=st.integers(1, 6),
    more=st.floats(0, 20, allow_nan=False),
    room=st.integers(30, 300),
    seed=st.integers(0, 9),
)
def test_numbers_of_events_have_the_mean_and_the_bounds_asked_for(
    shortest: int, more: float, room: int, seed: int
) -> None:
    options = WorldOptions(
        users=20_000,
        items=2000,
        events=shortest + more,
        shortest=shortest,
        longest=shortest + room,
        seed=seed,
    )
    counts = World(options).counts
    assert counts.min() >= shortest
    assert counts.max() <= shortest + room
    assert abs(counts.mean() - shortest - more) <= 5 * counts.std() / np.sqrt(20_000) + 0.01


def test_events_are_numbered_by_user_and_known_before_they_happen(world: World, log: pl.DataFrame) -> None:
    assert log["event"].to_list() == list(range(len(world)))
    assert log["user"].unique(maintain_order=True).to_list() == [f"u{n}" for n in range(SMALL.users)]


def test_interactions_are_valid_with_tables_titles_and_an_order_across_users() -> None:
    found = load(SMALL)
    assert found.order_across_users
    assert found.events.columns == ["event", "user", "item", "time", "creator", "propensity"]
    assert found.items is not None
    assert found.items.columns == ["item", "title", "topic", "creator", "born", "retired"]
    assert found.items["title"].n_unique() == SMALL.items
    assert found.counts["events whose time another of the same user has"] == 0
    assert found.counts["events equal in user, item and time"] == 0
    assert found.events["propensity"].is_between(0, 1, closed="right").all()
    assert "ndcg@10[latent-oracle] of users' last events 0." in found.source
    row = found.items.row(12, named=True)
    assert row["item"] == "i12"
    assert f"({row['topic']}, " in row["title"]


def test_propensities_can_be_withheld_and_nothing_else_changes(log: pl.DataFrame) -> None:
    assert World(evolve(SMALL, propensities=False)).log().equals(log.drop("propensity"))


def test_offers_are_told_slot_by_slot_and_agree_with_the_log(world: World, log: pl.DataFrame) -> None:
    offered = world.exposures()
    assert offered.height == len(world) * SMALL.slate
    chosen = offered.filter("chosen").select("event", "item", "propensity")
    assert_frame_equal(chosen, log.select("event", "item", "propensity"))


def test_users_that_do_not_exist_are_refused(world: World) -> None:
    with pytest.raises(DataError, match=r"^users: expected numbers from 0 to 119, got others$"):
        world.log([3, 120])


def test_the_sequence_and_the_audience_can_be_learned() -> None:
    """What a first-order model with a few lags reaches on last events is far above popularity; and who was there
    lately and likes the topic is a far better guess at the next user than who is most active."""
    world = World(WorldOptions(users=600, items=300, longest=100))
    log, items = world.log(), world.options.items
    item = log["item"].str.slice(1).cast(pl.Int64).to_numpy()
    pairs, popular = np.zeros((items, items)), np.zeros(items)
    histories = [item[a:b] for a, b in zip(world.offsets[:-1], world.offsets[1:], strict=True)]
    for history in histories:
        np.add.at(pairs, (history[:-2], history[1:-1]), 1)
        np.add.at(popular, history[:-1], 1)
    pairs /= pairs.sum(1, keepdims=True) + 1

    def ndcg(scores: np.ndarray) -> float:
        gains = []
        for row, history in zip(scores, histories, strict=True):
            row[history[:-1]] = -1
            rank = (row >= row[history[-1]]).sum()
            gains.append(1 / np.log2(1 + rank) if rank <= 10 else 0)
        return float(np.mean(gains))

    lagged = [sum(0.7**j * pairs[h[-2 - j]] for j in range(min(4, len(h) - 1))) for h in histories]
    sequential = ndcg(np.stack(lagged) + 1e-4 * popular / popular.sum())
    flat = ndcg(np.tile(popular, (len(histories), 1)))
    assert sequential > 3 * flat
    assert sequential < world.latent_oracle().expected

"""`benchmarks/middle.py` in miniature: a world as CSV is read, trained on and asked for everybody's lists, in parts
that go on after SIGKILL and equal the one-history path."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from engine_helpers import Forked
from recore_world import World
from recore_world.options import WorldOptions

import recore
from recore.api import Result
from recore.contracts.scoring import Queries
from recore.engine import scored
from recore.engine.ranks import TIE_BOUND
from recore.engine.recommend import Limits, recommend
from recore.histories import queries_from
from recore.sequential import SequentialScorer

USERS, ITEMS, VALIDATE, K, PART = 300, 260, 40, 20, 64
ASKED = 290  # of the users
RECIPE = f"""\
recore: 1
data: {{use: recore-data:events, path: log.csv, time: time}}
split: {{use: recore-data:leave-last, validate: {VALIDATE}}}
tokenizer: {{use: recore-tokenizers:items}}
objective: {{use: recore-objectives:next-item}}
model:
  history: {{last: 20}}
  embedder: {{use: recore-embeddings:padding-safe, width: 16}}
  position: {{use: recore-positions:start-absolute}}
  encoder: {{use: recore-sasrec:sasrec, layers: 1, dropout: 0.0}}
batcher: {{use: recore-batchers:ragged, users: 64}}
loss: {{use: recore-losses:bce, sampler: {{use: recore-samplers:uniform}}}}
trainer: {{use: recore-training:standard, learning_rate: 1e-2, epochs: 1}}
evaluators: {{use: recore-evaluation:ranking, k: [10]}}
"""


@pytest.fixture(scope="module")
def world() -> World:
    return World(WorldOptions(users=USERS, items=ITEMS, events=10, longest=50))


@pytest.fixture(scope="module")
def folder(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("middle")
    (made / "middle.yaml").write_text(RECIPE, encoding="utf-8")
    world.write(made / "log.csv", block=37)
    users = random.Random(0).sample(range(USERS), ASKED)
    (made / "users.txt").write_text("".join(f"u{user}\n" for user in users), encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def run(folder: Path) -> Result:
    return recore.run(folder / "middle.yaml", runs=folder / "runs")


@pytest.fixture(scope="module")
def everybody(run: Result) -> Queries:
    log = run.opened.prepared().log
    offsets = log.offsets()
    return queries_from(log, offsets[:-1], offsets[1:])


def test_the_file_holds_the_world_and_every_event_has_its_part(world: World, run: Result) -> None:
    prepared = run.opened.prepared()
    columns = ["user", "item", "time"]
    assert prepared.log.events.select(columns).equals(world.log().select(columns))
    assert len(prepared.log) == len(world)
    parts = prepared.parts
    assert (len(parts.validation), len(parts.test)) == (VALIDATE, USERS)
    assert len(parts.train) == len(world) - VALIDATE - USERS
    assert (
        f"of the {VALIDATE} of them whose ids hash lowest" in run.record["card"]["protocol"]["split"]["name"]
    )
    assert run.users()["user"].n_unique() == USERS


# ---- killed ----------------------------------------------------------------------------------------------------

SMALL_PARTS = f"""
import recore.engine.recommend as recommending
recommending.USERS_AT_ONCE = {PART}
"""
KILL = (
    SMALL_PARTS
    + """
import os, pathlib, signal
import polars as pl

real, calls = {owner}.{name}, [0]
def counted(*arguments, **keywords):
    calls[0] += 1
    if {after}:
        value = real(*arguments, **keywords)
    if calls[0] == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return value if {after} else real(*arguments, **keywords)
{owner}.{name} = counted
"""
)
PARTS = -(-ASKED // PART)


def held(out: Path) -> dict[str, tuple[int, bytes]]:
    """When each part was written, and what it holds."""
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.glob("part-*.parquet")}


@pytest.fixture(scope="module")
def straight(folder: Path, run: Result, forked: Forked) -> pl.DataFrame:
    """The lists, written without a stop."""
    out = folder / "straight"
    status, printed, err = forked(*ask(folder, run, out), before=SMALL_PARTS)
    assert status == 0, err
    assert printed.split() == [str(out / f"part-{number:05d}.parquet") for number in range(PARTS)]
    return pl.read_parquet(out / "part-*.parquet")


def ask(folder: Path, run: Result, out: Path) -> list[str | Path]:
    return ["recommend", run.folder, "--users", folder / "users.txt", "-k", str(K), "--out", out]


@pytest.mark.parametrize(
    ("owner", "name", "call", "after", "left"),
    [
        ("pathlib.Path", "replace", 1, False, 0),  # about.json is written aside and has no name yet
        ("pathlib.Path", "replace", 1, True, 0),
        ("pl.DataFrame", "write_parquet", 3, False, 2),
        ("pl.DataFrame", "write_parquet", 3, True, 2),  # the third part is written aside and has no name yet
        ("pathlib.Path", "replace", 5, True, 4),
        ("recommending", "list_block", 5, False, 4),
    ],
)
def test_after_sigkill_it_goes_on_at_the_next_part(
    owner: str,
    name: str,
    call: int,
    after: bool,
    left: int,
    folder: Path,
    run: Result,
    straight: pl.DataFrame,
    tmp_path: Path,
    forked: Forked,
) -> None:
    out = tmp_path / "lists"
    kill = KILL.format(owner=owner, name=name, call=call, after=after)
    status, _, _ = forked(*ask(folder, run, out), before=kill)
    assert status == -signal.SIGKILL
    before = held(out)
    assert len(before) == left
    assert all(pl.read_parquet(out / name).height for name in before)
    status, printed, err = forked(*ask(folder, run, out), before=SMALL_PARTS)
    assert status == 0, err
    assert len(printed.split()) == PARTS
    after_ = held(out)
    assert len(after_) == PARTS
    assert {part: after_[part] for part in before} == before, "a finished part was written again"
    assert pl.read_parquet(out / "part-*.parquet").equals(straight)
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


# ---- the same rows ---------------------------------------------------------------------------------------------


def test_rows_equal_the_one_history_path(folder: Path, run: Result, straight: pl.DataFrame) -> None:
    asked = (folder / "users.txt").read_text("utf-8").split()
    assert straight["user"].unique(maintain_order=True).to_list() == asked
    assert straight["query"].to_list() == np.repeat(np.arange(ASKED), K).tolist()
    assert straight["rank"].to_list() == list(range(1, K + 1)) * ASKED
    log = pl.read_csv(folder / "log.csv")
    assert not straight.join(log, on=["user", "item"], how="semi").height
    scale = float(straight["score"].abs().max())  # type: ignore[arg-type]  # a float column
    for user in asked[::9]:
        history = log.filter(pl.col("user") == user).sort("time")["item"].to_list()
        alone, mine = run.recommend([history], k=K), straight.filter(pl.col("user") == user)
        assert alone["item"].to_list() == mine["item"].to_list()
        assert np.abs(alone["score"].to_numpy() - mine["score"].to_numpy()).max() <= TIE_BOUND * scale


@pytest.mark.parametrize(("scores", "queries"), [(1, 1), (1_000, 1), (1_000, 50), (10**7, 50)])
def test_no_more_is_held_than_stated_and_blocks_change_no_list(
    scores: int, queries: int, run: Result, everybody: Queries, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = recommend(run.opened.scorer, everybody, Limits(K))
    monkeypatch.setattr(scored, "SCORES_AT_ONCE", scores)
    monkeypatch.setattr(scored, "QUERIES_AT_ONCE", queries)
    encode, score = SequentialScorer.encode, SequentialScorer.score
    asked: list[int] = []
    made: list[int] = []

    def encoding(self: SequentialScorer, given: Queries) -> torch.Tensor:
        asked.append(len(given))
        return encode(self, given)

    def scoring(
        self: SequentialScorer, state: torch.Tensor, items: torch.Tensor | None = None
    ) -> torch.Tensor:
        found = score(self, state, items)
        made.append(found.shape[0])
        return found

    monkeypatch.setattr(SequentialScorer, "encode", encoding)
    monkeypatch.setattr(SequentialScorer, "score", scoring)
    blocks = recommend(run.opened.scorer, everybody, Limits(K))
    numbered = run.opened.scorer.tokenizer.items
    rows = max(1, scores // numbered)
    assert (sum(asked), sum(made)) == (USERS, USERS)
    assert max(made) == min(rows, USERS, max(rows, queries))
    assert max(asked) == min(max(rows, queries), USERS)
    assert blocks["item"].equals(whole["item"])
    scale = float(whole["score"].abs().max())  # type: ignore[arg-type]  # a float column
    assert float((blocks["score"] - whole["score"]).abs().max()) <= TIE_BOUND * scale  # type: ignore[arg-type]  # as above

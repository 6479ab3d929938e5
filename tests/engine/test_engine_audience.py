"""Who is next for an item: `recommend --audience`, `Result.audience`, and the evaluation of users, over a model of
two views; one scoring path for all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from engine_helpers import main

import recore
from recore.api import Result
from recore.contracts.scoring import Dual
from recore.engine import recommend as recommending
from recore.engine.audiences import NAMES, audience
from recore.engine.recommend import Limits, recommend
from recore.engine.run import reopen
from recore.errors import DataError

DUAL = """\
recore: 1
data:
  use: recore-data:events
  path: log.csv
  time: when
  items: {path: titles.csv, id: item, title: title}
split: {use: recore-data:leave-last}
tokenizer: {use: recore-tokenizers:items}
objective: {use: recore-objectives:next-item}
model:
  use: recore-duality:dual
  history: {last: 6}
  embedder: {use: recore-embeddings:padding-safe, width: 8}
  position: {use: recore-positions:start-absolute}
  encoder: {use: recore-sasrec:sasrec, layers: 1}
  item:
    objective: {use: recore-duality:next-user}
    history: {last: 4}
    embedder: {use: recore-embeddings:padding-safe, width: 8}
    position: {use: recore-positions:start-absolute}
    encoder: {use: recore-sasrec:sasrec, layers: 1}
batcher: {use: recore-batchers:ragged, users: 8}
loss:
  - {name: next-item, use: recore-losses:ce}
  - {name: next-user, use: recore-losses:ce, view: item}
trainer: {use: recore-duality:duality, epochs: 2, learning_rate: 1e-2}
evaluators:
  - {use: recore-evaluation:ranking, k: [5, 10]}
  - {use: recore-duality:audience, k: [5, 10]}
"""
USERS, ITEMS = 12, 9


def rows() -> pl.DataFrame:
    """Text ids; an item that one user met, one with two of one title, one without a title."""
    random = np.random.default_rng(3)
    found = []
    for user in range(USERS):
        for when in sorted(random.integers(0, 40, 7).tolist()):
            found.append((f"u{user:02d}", f"i{int(random.integers(ITEMS)):02d}", when))
    found += [("u00", "rare", 50), ("u01", "i00", 51)]
    return pl.DataFrame(found, schema=["user", "item", "when"], orient="row")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("audience")
    (made / "dual.yaml").write_text(DUAL, encoding="utf-8")
    rows().write_csv(made / "log.csv")
    titles = {f"i{n:02d}": f"Title {n}" for n in range(ITEMS - 1)} | {"i01": "The same", "i02": "The same"}
    pl.DataFrame({"item": list(titles), "title": list(titles.values())}).write_csv(made / "titles.csv")
    return made


@pytest.fixture(scope="module")
def result(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return recore.run(recore.load(folder / "dual.yaml"), runs=tmp_path_factory.mktemp("runs"))


def listed(capsys: pytest.CaptureFixture[str], result: Result, *arguments: object) -> list[dict[str, Any]]:
    status, out, err = main(capsys, "recommend", result.folder, "--audience", "--json", *arguments)
    assert status == 0, err
    return [json.loads(line) for line in out.splitlines()]


def refused(capsys: pytest.CaptureFixture[str], result: Result, *arguments: object) -> str:
    status, out, err = main(capsys, "recommend", result.folder, *arguments)
    assert status == 2
    assert not out
    assert "Traceback" not in err
    return err.strip()


# ---- lists ----------------------------------------------------------------------------------------------------


def test_an_item_by_its_id_and_by_its_title(result: Result, capsys: pytest.CaptureFixture[str]) -> None:
    by_id, by_title = (listed(capsys, result, "--item", item, "-k", 3) for item in ("i05", "Title 5"))
    assert by_id == by_title
    assert [(row["item"], row["rank"], row["title"]) for row in by_id] == [
        ("i05", n, "Title 5") for n in (1, 2, 3)
    ]
    met = set(rows().filter(pl.col("item") == "i05")["user"])
    assert not {row["user"] for row in by_id} & met
    assert [row["score"] for row in by_id] == sorted((row["score"] for row in by_id), reverse=True)


def test_several_items_and_one_without_a_title(result: Result, capsys: pytest.CaptureFixture[str]) -> None:
    found = listed(capsys, result, "--item", "rare", "--item", "Title 0", "--item", "i08", "-k", 1)
    assert [(row["query"], row["item"], row["title"]) for row in found] == [
        (0, "rare", None),
        (1, "i00", "Title 0"),
        (2, "i08", None),
    ]


def test_lists_are_those_of_python(result: Result, capsys: pytest.CaptureFixture[str]) -> None:
    printed = listed(capsys, result, "--items", "=i05, i03", "-k", 4)
    frame = result.audience(["i05", "i03"], k=4)
    assert frame.columns == ["query", "item", "rank", "user", "score", "title"]
    assert [row["user"] for row in printed] == frame["user"].to_list()
    assert [row["score"] for row in printed] == pytest.approx(frame["score"].to_list())


def test_the_table_says_whom_it_is_about(result: Result, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = main(capsys, "recommend", result.folder, "--audience", "--item", "i05", "-k", 2)
    assert status == 0, err
    assert "item i05, Title 5: after" in out
    assert "rank  user" in out
    best = result.audience(["i05"], k=2)["user"].to_list()
    assert all(user in out for user in best)


def test_candidates_and_exclude_are_users(
    result: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some, never = tmp_path / "some.txt", tmp_path / "never.txt"
    some.write_text("u03\nu04\nu05\n", encoding="utf-8")
    never.write_text("u04\n", encoding="utf-8")
    found = listed(
        capsys, result, "--item", "i05", "--keep-seen", "--candidates", some, "--exclude", never, "-k", 9
    )
    assert {row["user"] for row in found} == {"u03", "u05"}
    same = result.audience(["i05"], k=9, keep_seen=True, candidates=["u03", "u04", "u05"], exclude=["u04"])
    assert same["user"].to_list() == [row["user"] for row in found]
    some.write_text("i05\n", encoding="utf-8")
    assert "--candidates: 1 unknown items, the first: i05" in refused(
        capsys, result, "--audience", "--item", "i05", "--candidates", some
    )


def test_seen_users_are_left_out_unless_kept(result: Result) -> None:
    met = set(rows().filter(pl.col("item") == "rare")["user"])
    assert set(result.audience(["rare"], k=99)["user"]) == {f"u{n:02d}" for n in range(USERS)} - met
    assert set(result.audience(["rare"], k=99, keep_seen=True)["user"]) == {f"u{n:02d}" for n in range(USERS)}


def test_all_items_in_blocks_equal_one_item(
    result: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of the block path are those of one item asked alone; it goes on after a stop at the next part."""
    monkeypatch.setattr(recommending, "USERS_AT_ONCE", 3)
    arguments = (
        "recommend",
        result.folder,
        "--audience",
        "--items",
        "all",
        "-k",
        5,
        "--out",
        tmp_path / "out",
    )
    real, calls = recommending._Lists.frame, [0]

    def stops(self: Any, queries: Any) -> pl.DataFrame:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return real(self, queries)

    with monkeypatch.context() as patch:
        patch.setattr(recommending._Lists, "frame", stops)
        assert main(capsys, *arguments)[0] == 130
    parts = sorted((tmp_path / "out").glob("part-*.parquet"))
    assert len(parts) == 2
    stamps = [part.stat().st_mtime_ns for part in parts]
    status, out, err = main(capsys, *arguments)
    assert status == 0, err
    assert [part.stat().st_mtime_ns for part in parts] == stamps
    frame = pl.concat([pl.read_parquet(line) for line in out.split()])
    assert frame.columns == ["query", "item", "rank", "user", "score"]
    items = frame.unique("query", maintain_order=True)["item"].to_list()
    assert sorted(items) == sorted(rows()["item"].unique().to_list())
    for number, item in enumerate(items):
        block, alone = frame.filter(pl.col("query") == number), result.audience([item], k=5)
        assert block["user"].to_list() == alone["user"].to_list()
        np.testing.assert_allclose(block["score"], alone["score"], rtol=0, atol=1e-5)
    # The same folder does not answer another question.
    status, _, err = main(capsys, *arguments[:-3], 4, "--out", tmp_path / "out")
    assert status == 2
    assert "another question" in err


def test_users_and_audiences_do_not_share_a_folder(
    result: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(capsys, "recommend", result.folder, "--users", "all", "--out", out)[0] == 0
    status, _, err = main(capsys, "recommend", result.folder, "--audience", "--items", "all", "--out", out)
    assert status == 2
    assert f"{out} holds the answer to another question" in err


def test_items_from_a_file(result: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "items.txt"
    file.write_text("i05\n\n i03 \n", encoding="utf-8")
    assert listed(capsys, result, "--items", file) == listed(capsys, result, "--items", "=i05,i03")


def test_lists_are_what_evaluation_ranks(result: Result) -> None:
    """Asked after the events before a target, without the filter: the target's place in the list is its rank."""
    opened = reopen(result.folder)
    prepared, scorer = opened.prepared(), opened.scorer
    assert isinstance(scorer, Dual)
    examination = prepared.audience("test")
    answering = scorer.audience(examination.known)
    queries = examination.questions(answering.tokenizer).queries
    everybody = recommend(answering, queries, Limits(k=99), opened.seed, NAMES)
    ranks = dict(zip(result.users()["event"], result.users()["rank[next-user]"], strict=True))
    targets = prepared.log.events[prepared.parts.test.target]
    for number, (event, user) in enumerate(targets.select("event", "user").iter_rows()):
        place = everybody.filter((pl.col("query") == number) & (pl.col("user") == user))["rank"].to_list()
        # Equal scores stand before a target in its rank, and anywhere in a list.
        assert ranks[event] >= place[0] if place else ranks[event] == USERS + 1


# ---- refused --------------------------------------------------------------------------------------------------


def test_a_title_that_several_items_have(result: Result, capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(capsys, result, "--audience", "--item", "The same")
    assert err == "2 items have the title 'The same': i01, i02 (give an id)"


def test_items_that_the_log_does_not_have(result: Result, capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(capsys, result, "--audience", "--item", "i05", "--item", "nowhere", "--item", "Title 99")
    assert err == "2 items are not in the data, the first: nowhere, Title 99"


@pytest.mark.parametrize(
    "arguments", [("--item", "i05"), ("--items", "all"), ("--audience", "--users", "all")]
)
def test_audience_goes_with_items(
    arguments: tuple[str, ...], result: Result, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, result, *arguments) == ("--audience goes with --item or --items, and they with it")


def test_a_model_of_one_view_ranks_no_users(whole: Result, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = f"{whole.folder}: its model, recore:sequential, ranks no users (train one that encodes the view `item`)"
    assert refused(capsys, whole, "--audience", "--item", "i05") == f"{wanted}"
    with pytest.raises(DataError) as caught:
        whole.audience(["i05"])
    assert str(caught.value) == wanted


def test_from_python(result: Result) -> None:
    assert result.audience([], k=3).height == 0
    with pytest.raises(DataError, match="k: expected at least 1, got 0"):
        result.audience(["i05"], k=0)
    with pytest.raises(DataError, match="1 items are not in the data, the first: nowhere"):
        result.audience(["nowhere"])
    with pytest.raises(DataError, match="candidates: 1 unknown items, the first: i05"):
        result.audience(["i05"], candidates=["i05"])


def test_numbers_that_are_no_ids_are_refused(tmp_path: Path, folder: Path) -> None:
    """3.7 is not the item 3, nor is `true` the item 1."""
    codes = rows().filter(pl.col("item") != "rare").with_columns(pl.col("item").str.slice(1).cast(pl.Int64))
    overlay: Mapping[str, Any] = {
        "data": {"path": None, "items": None, "frame": codes},
        "trainer": {"epochs": 1},
    }
    result = recore.run(recore.load(folder / "dual.yaml", overlay=overlay), runs=tmp_path)
    assert result.audience([3], k=2)["item"].to_list() == [3, 3]
    assert result.audience(["3"], k=2)["item"].to_list() == [3, 3]
    for wrong in ([3.7], [True], [3.0]):
        with pytest.raises(DataError):
            result.audience(wrong)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(DataError, match="the first: 3x"):
        result.audience(["3x"])


# ---- what it is made of ---------------------------------------------------------------------------------------


def test_what_is_asked_is_the_whole_log(result: Result) -> None:
    """All events of each item, validation and test included, in order of time; no moment: the end."""
    opened = reopen(result.folder)
    _, queries = audience(opened, pl.Series(["i05", "rare"]))
    assert queries.time is None
    assert queries.users is not None
    assert queries.users.to_list() == ["i05", "rare"]
    log = rows().with_row_index("row").filter(pl.col("item") == "i05")
    first = queries.events[: int(queries.offsets[1])]
    assert sorted(zip(first["item"], first["time"], strict=True)) == sorted(
        zip(log["user"], log["when"], strict=True)
    )
    assert first["time"].is_sorted()


def test_evaluate_repeats_the_figures(result: Result, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = main(capsys, "evaluate", result.folder, "--json")
    assert status == 0, err
    assert "[next-user]" in out
    for name, value in result.test.items():
        assert name in out
        assert np.isfinite(value)
    assert torch.get_num_threads() == 1

"""One scoring path: evaluation, its repetition, `recommend` for one and for all give the same scores and lists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from engine_helpers import Small, command, framed, main, walks

import recore
from recore import sequential
from recore.api import Result, open_run
from recore.contracts.scoring import Block, Queries, Query
from recore.engine import recommend as recommending
from recore.engine import scored
from recore.engine.ranks import TIE_BOUND
from recore.engine.recommend import Limits, recommend
from recore.engine.run import reopen
from recore.errors import DataError, RunFolderError
from recore.histories import queries_from


class Keep:
    """An evaluator that keeps what it is shown."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.wants = inner, inner.wants
        self.blocks: list[Block] = []
        self.formulas = inner.formulas

    def start(self, context: Any) -> None:
        self.inner.start(context)

    def update(self, block: Block) -> None:
        self.blocks.append(block)
        self.inner.update(block)

    def finish(self) -> Any:
        return self.inner.finish()


def asked(result: Result, part: str = "test") -> tuple[Any, list[Block], Any]:
    """The examination, the blocks that an evaluator saw, and the figures."""
    opened = reopen(result.folder)
    prepared = opened.prepared()
    examination = prepared.examination(part)  # type: ignore[arg-type]  # a literal by its value
    keep = Keep(prepared.evaluators[0])
    figures = examination.ask(opened.scorer, [keep])
    return examination, keep.blocks, figures


# ---- evaluate ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["test", "validation"])
def test_evaluate_gives_the_figures_of_the_record(
    part: str, whole: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = main(
        capsys, "evaluate", whole.folder, "--part", part, "--json", "--users", tmp_path / "users.parquet"
    )
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["totals"] == whole.record[part]
    if part == "test":
        assert found["intervals"] == whole.record["intervals"]
        assert found["groups"] == whole.record["groups"]
        assert found["counts"].items() <= whole.record["counts"].items()
        assert pl.read_parquet(tmp_path / "users.parquet").equals(whole.users())


def test_the_validation_of_the_record_is_that_of_the_best_epoch(whole: Result) -> None:
    lines = [json.loads(line) for line in (whole.folder / "metrics.jsonl").read_text().splitlines()]
    best = max(lines, key=lambda line: line["validation"]["ndcg@10"])
    assert best["epoch"] == whole.record["best_epoch"]
    assert best["validation"] == whole.record["validation"]


def test_evaluate_prints_a_table(whole: Result, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = main(capsys, "evaluate", whole.folder)
    assert status == 0
    assert f"{whole.test['ndcg@10']:.4f}" in out
    assert "leave-last" in out


def test_what_an_evaluator_sees(whole: Result) -> None:
    """A row per user: who, from how long a history, which event is the target, whether it is cold."""
    log = walks()
    _, blocks, _ = asked(whole)
    (block,) = blocks
    lengths = log.group_by("user", maintain_order=True).len()
    assert block.users.to_list() == lengths["user"].to_list()
    assert block.length.tolist() == (lengths["len"] - 1).to_list()
    assert block.event is not None
    last = log.with_row_index().group_by("user", maintain_order=True).agg(pl.col("index").last())
    assert block.event.tolist() == last["index"].to_list()
    tokenizer = reopen(whole.folder).scorer.tokenizer
    assert tokenizer.items_of(block.targets).to_list() == log["item"].gather(last["index"]).to_list()


# ---- recommend is evaluation's list --------------------------------------------------------------------------


@pytest.mark.parametrize("keep_seen", [False, True])
def test_recommend_gives_evaluations_lists(keep_seen: bool, small: Small, whole: Result) -> None:
    result = whole
    if keep_seen:
        result = small({"evaluators": {"use": "recore-evaluation:ranking", "k": [5, 10], "seen": "none"}})
    examination, blocks, _ = asked(result)
    (block,) = blocks
    queries = examination.queries
    items = queries.events["item"].to_list()
    histories = [items[a:b] for a, b in zip(queries.offsets[:-1], queries.offsets[1:], strict=True)]
    tokenizer = reopen(result.folder).scorer.tokenizer
    found = result.recommend(histories, k=10, keep_seen=keep_seen)
    for number, top in enumerate(block.top):
        expected = tokenizer.items_of(top[top >= 0]).to_list()
        assert found.filter(pl.col("query") == number)["item"].to_list() == expected
    # And the target's place in the lists is its rank, wherever nothing is within the bound of ties of it.
    agreeing = 0
    for number, rank in enumerate(block.rank):
        rows = found.filter(pl.col("query") == number)
        target = tokenizer.items_of(block.targets[number : number + 1])[0]
        here = rows.filter(pl.col("item") == target)
        if here.height:
            assert int(here["rank"][0]) <= rank
            scores = rows["score"].to_numpy()
            gap = np.abs(scores - here["score"][0])
            if (gap < 4 * TIE_BOUND * np.abs(scores).max()).sum() == 1:
                assert int(here["rank"][0]) == rank
                agreeing += 1
    assert agreeing > 3


def test_one_history_alone_is_as_among_all(whole: Result, tmp_path: Path) -> None:
    """Lists are the same; scores within the stated bound, since a batch sums in another order."""
    opened = reopen(whole.folder)
    log = opened.prepared().log
    offsets = log.offsets()
    everybody = recommend(
        opened.scorer, queries_from(log, offsets[:-1], offsets[1:]), Limits(k=7), opened.seed
    )
    items = log.events["item"].to_list()
    for number in range(0, len(offsets) - 1, 5):
        alone = whole.recommend([items[offsets[number] : offsets[number + 1]]], k=7)
        together = everybody.filter(pl.col("query") == number)
        assert alone["item"].to_list() == together["item"].to_list()
        difference = (alone["score"] - together["score"]).abs().max()
        assert difference <= TIE_BOUND * everybody["score"].abs().max()  # type: ignore[operator]


@pytest.mark.parametrize(
    "overlay",
    [
        {},
        {"batcher": {"use": "recore-batchers:padded", "users": 8}},
        {"model": {"position": {"use": "recore-positions:relative-bias", "max_distance": 4}}},
    ],
    ids=["ragged", "padded", "relative-bias"],
)
def test_blocks_change_nothing(
    overlay: dict[str, Any], small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the block of scores, not the block of events: scores within the bound, and so ranks and figures."""
    result = small({**overlay, "trainer": {"epochs": 1}})
    opened = reopen(result.folder)
    prepared = opened.prepared()
    examination = prepared.examination("test")
    whole_scores = opened.scorer.score(opened.scorer.encode(examination.queries))
    scale = float(whole_scores.abs().max())
    for scores, events in ((1, 1), (100, 7), (24 * 4, 65_536), (8_000_000, 3)):
        monkeypatch.setattr(scored, "SCORES_AT_ONCE", scores)
        monkeypatch.setattr(scored, "QUERIES_AT_ONCE", 3)
        monkeypatch.setattr(sequential, "EVENTS_AT_ONCE", events)
        again = opened.scorer.score(opened.scorer.encode(examination.queries))
        assert float((again - whole_scores).abs().max()) <= TIE_BOUND * scale
        figures = examination.ask(opened.scorer, prepared.evaluators)
        assert dict(figures.totals) == result.test
        assert figures.frame.equals(result.users())


def test_the_order_of_queries_changes_nothing(whole: Result) -> None:
    opened = reopen(whole.folder)
    log = opened.prepared().log
    offsets = log.offsets()
    order = np.random.default_rng(0).permutation(len(offsets) - 1)
    straight = opened.scorer.score(opened.scorer.encode(queries_from(log, offsets[:-1], offsets[1:])))
    mixed = opened.scorer.score(
        opened.scorer.encode(queries_from(log, offsets[:-1][order], offsets[1:][order]))
    )
    assert float((mixed - straight[torch.from_numpy(order)]).abs().max()) <= TIE_BOUND * float(
        straight.abs().max()
    )


def test_only_the_last_events_are_read(whole: Result) -> None:
    """The model reads six; older ones only filter."""
    recent = [f"i{n:02d}" for n in range(6)]
    short = whole.recommend([recent], k=30, keep_seen=True)
    long = whole.recommend([["i20", "i21", *recent]], k=30, keep_seen=True)
    assert short["item"].to_list() == long["item"].to_list()
    assert "i20" not in whole.recommend([["i20", "i21", *recent]], k=30)["item"].to_list()


# ---- recommend: what may be asked ----------------------------------------------------------------------------


def test_limits(whole: Result) -> None:
    history = [["i01", "i02"]]
    every = whole.recommend(history, k=10_000, keep_seen=True)
    assert every["item"].n_unique() == every.height == 24
    assert every["rank"].to_list() == list(range(1, 25))
    assert whole.recommend(history, k=10_000).height == 22
    assert whole.recommend(history, k=3)["item"].to_list() == whole.recommend(history)["item"].to_list()[:3]
    some = whole.recommend(history, candidates=["i05", "i01", "i07", "i05"])
    assert set(some["item"]) == {"i05", "i07"}
    assert set(whole.recommend(history, candidates=["i05", "i01"], keep_seen=True)["item"]) == {"i05", "i01"}
    assert "i05" not in whole.recommend(history, k=99, exclude=["i05"])["item"].to_list()
    assert whole.recommend(history, candidates=["i05"], exclude=["i05"]).height == 0
    assert whole.recommend(history, candidates=[]).height == 0
    with pytest.raises(DataError, match="at least 1"):
        whole.recommend(history, k=0)
    with pytest.raises(DataError, match=r"candidates: 2 unknown items, the first: nowhere, 7"):
        whole.recommend(history, candidates=["i05", "nowhere", 7])


def test_histories_of_all_kinds(whole: Result) -> None:
    found = whole.recommend([[], ["nowhere"], ["i01", "nowhere"], ["i01"]], k=5)
    by_query = [found.filter(pl.col("query") == number) for number in range(4)]
    assert [rows.height for rows in by_query] == [5, 5, 5, 5]
    # Nothing known of it: no score, so all items tie, and the order is that of the hash.
    assert by_query[0]["score"].to_list() == [0.0] * 5
    # An unknown item keeps its place (with the place's vector), so it is not as if it were not there.
    assert by_query[2]["score"].to_list() != by_query[3]["score"].to_list()
    assert whole.recommend([], k=5).height == 0
    assert whole.recommend([], k=5).columns == found.columns
    query = Query(history=["i01"], user="a stranger")
    assert whole.recommend([query])["user"].to_list() == ["a stranger"] * 10
    with pytest.raises(DataError, match="integers or text"):
        whole.recommend([[1.5]])  # type: ignore[arg-type]  # what is refused


def test_dropping_unknown_items_closes_the_history(small: Small) -> None:
    result = small({"tokenizer": {"unknown": "drop"}, "trainer": {"epochs": 1}})
    alone, among = [["i01", "i02"]], [["i01", "nowhere", "i02", "elsewhere"]]
    assert result.recommend(alone).drop("query").equals(result.recommend(among).drop("query"))
    # Dropped items make room: the six that are read are the last six known ones.
    known = [f"i{n:02d}" for n in range(8)]
    mixed = [item for pair in zip(known, ["x"] * 8, strict=True) for item in pair]
    a, b = result.recommend([known], k=24), result.recommend([mixed], k=24)
    assert a["item"].to_list() == b["item"].to_list()
    assert result.recommend([["x"]])["score"].to_list() == [0.0] * 10


@pytest.mark.parametrize("kind", ["integers", "unicode", "spaces"])
def test_ids_of_all_kinds(
    kind: str, small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ids come back as the data has them; text from a command line stands for integers."""
    names: dict[str, Any] = {
        "integers": lambda n: n * 7 - 3,
        "unicode": lambda n: f"品{n}é",
        "spaces": lambda n: f"two words {n}",
    }
    rename = names[kind]
    numbers = walks()["item"].str.slice(1).cast(pl.Int64)
    frame = walks().with_columns(pl.Series("item", [rename(n) for n in numbers]))
    if kind == "integers":
        frame = frame.with_columns(pl.col("user").str.slice(1).cast(pl.Int32))
    result = small({**framed(frame), "trainer": {"epochs": 1}})
    history = [rename(3), rename(4)]
    found = result.recommend([history], k=3)
    assert found["item"].dtype == frame["item"].dtype
    assert set(found["item"]) <= set(frame["item"])
    text = ", ".join(map(str, history))
    status, out, err = main(capsys, "recommend", result.folder, "--history", text, "-k", "3", "--json")
    assert (status, err) == (0, "")
    assert [json.loads(line)["item"] for line in out.splitlines()] == found["item"].to_list()
    # As text from Python, too; and what is no integer is an unknown item, not an error.
    if kind == "integers":
        assert result.recommend([[str(item) for item in history]], k=3).equals(found)
        status, out, err = main(capsys, "recommend", result.folder, "--history", f"{text}, seven", "--json")
        assert status == 0
        assert "unknown items keep their places: seven" in err
    user = frame["user"][0]
    status, out, err = main(capsys, "recommend", result.folder, "--users", f"={user}", "--json")
    assert status == 0
    assert {json.loads(line)["user"] for line in out.splitlines()} == {user}


# ---- the command line ----------------------------------------------------------------------------------------


def test_recommend_prints_titles_above_a_table(whole: Result, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = main(capsys, "recommend", whole.folder, "--users", "=u0,u1", "-k", "2")
    assert status == 0
    lines = out.splitlines()
    assert lines[0].startswith("user u0: after … (")
    assert "The [bold] title of" in lines[0]
    assert lines[1].split() == ["rank", "item", "title", "score"]
    assert "The [bold] title of" in lines[2]
    assert "ünïcode" in lines[2]
    assert sum(line.startswith("user ") for line in lines) == 2


def test_limits_from_files(whole: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "some").write_text("i05\n\ni06\ni07\n", encoding="utf-8")
    (tmp_path / "not").write_text("i06\n", encoding="utf-8")
    arguments = ["recommend", whole.folder, "--history", "i05", "--json", "--candidates", tmp_path / "some"]

    def items(*more: str | Path) -> set[str]:
        status, out, err = main(capsys, *arguments, *more)
        assert status == 0, err
        return {json.loads(line)["item"] for line in out.splitlines()}

    assert items() == {"i06", "i07"}
    assert items("--exclude", tmp_path / "not") == {"i07"}
    assert items("--exclude", tmp_path / "not", "--keep-seen") == {"i05", "i07"}


def test_histories_and_users_from_files(
    whole: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "histories").write_text("i01, i02\n\ni03\n", encoding="utf-8")
    status, out, _ = main(
        capsys, "recommend", whole.folder, "--histories", tmp_path / "histories", "--json", "-k", "2"
    )
    assert status == 0
    assert [json.loads(line)["query"] for line in out.splitlines()] == [0, 0, 1, 1, 2, 2]
    (tmp_path / "users").write_text("u3\nu1\n", encoding="utf-8")
    status, out, _ = main(
        capsys, "recommend", whole.folder, "--users", tmp_path / "users", "--json", "-k", "1"
    )
    assert [json.loads(line)["user"] for line in out.splitlines()] == ["u3", "u1"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--users", "=u0,nobody,u1,noone"], "2 users are not in the data, the first: nobody, noone"),
        (["--users", "no-such-file"], "no-such-file cannot be read"),
        (["--history", "i01", "-k", "0"], "-k: expected at least 1, got 0"),
        (["--history", "i01", "--candidates", "latin"], "latin cannot be read"),
        (["--history", "i01", "--exclude", "strange"], "--exclude: 1 unknown items, the first: zz"),
        (["--users", "all", "--out", "strange"], "strange is no folder"),
        (["--users", "all", "--out", "full"], "full is not empty"),
        ([], "one of the arguments"),
        (["--users", "all", "--history", "i01"], "not allowed with"),
    ],
)
def test_what_is_asked_wrongly_is_refused(
    arguments: list[str],
    complaint: str,
    whole: Result,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("latin").write_bytes("é".encode("latin-1"))
    Path("strange").write_text("zz\n")
    Path("full").mkdir()
    Path("full/thing").write_text("")
    status, _, err = main(capsys, "recommend", whole.folder, *arguments)
    assert status == 2
    assert complaint in err
    assert "Traceback" not in err


# ---- everybody's lists, in parts -----------------------------------------------------------------------------


@pytest.fixture
def parts_of_eight(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(recommending, "USERS_AT_ONCE", 8)
    return iter(())


def test_out_in_bounded_parts_that_go_on(
    whole: Result,
    tmp_path: Path,
    parts_of_eight: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "recs"
    ask = ["recommend", whole.folder, "--users", "all", "-k", "4", "--out", out]
    status, printed, err = main(capsys, *ask)
    assert (status, err) == (0, "")
    files = sorted(out.glob("*.parquet"))
    assert [str(file) for file in files] == printed.split()
    assert [file.name for file in files] == [f"part-{number:05d}.parquet" for number in range(4)]
    assert [pl.read_parquet(file)["query"].n_unique() for file in files] == [8, 8, 8, 6]
    together = pl.read_parquet(out / "part-*.parquet")
    assert together["user"].unique(maintain_order=True).to_list() == [f"u{n}" for n in range(30)]
    content = {file.name: file.read_bytes() for file in files}
    stamps = {file.name: file.stat().st_mtime_ns for file in files}

    files[1].unlink()
    assert main(capsys, *ask)[0] == 0
    assert {file.name: file.read_bytes() for file in files} == content
    assert [file.stat().st_mtime_ns == stamps[file.name] for file in files] == [True, False, True, True]

    # The one path: users one by one, and their whole histories by hand, have the same rows.
    log = walks()
    for user in ("u3", "u17"):
        history = log.filter(pl.col("user") == user)["item"].to_list()
        mine = together.filter(pl.col("user") == user)
        assert mine["item"].to_list() == whole.recommend([history], k=4)["item"].to_list()


@pytest.mark.parametrize("other", [["-k", "5"], ["--keep-seen"], ["--exclude", "not"], ["--users", "=u1"]])
def test_out_of_another_question_is_refused(
    other: list[str],
    whole: Result,
    tmp_path: Path,
    parts_of_eight: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("not").write_text("i03\n")
    ask = ["recommend", whole.folder, "--users", "all", "-k", "4", "--out", "recs"]
    assert main(capsys, *ask)[0] == 0
    before = {path.name: path.read_bytes() for path in Path("recs").iterdir()}
    status, _, err = main(capsys, *ask, *other)
    assert status == 2
    assert "recs holds the answer to another question" in err
    assert {path.name: path.read_bytes() for path in Path("recs").iterdir()} == before


def test_other_histories_of_the_same_lengths_are_another_question(
    whole: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    histories = tmp_path / "histories"
    histories.write_text("i01,i02\ni03\n")
    ask = ["recommend", whole.folder, "--histories", histories, "--out", tmp_path / "recs"]
    assert main(capsys, *ask)[0] == 0
    histories.write_text("i01,i02\ni04\n")
    assert main(capsys, *ask)[0] == 2


def test_other_weights_are_another_question(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = small({"trainer": {"epochs": 1}}).folder
    ask = ["recommend", folder, "--users", "all", "--out", tmp_path / "recs"]
    assert main(capsys, *ask)[0] == 0
    from safetensors.torch import load_file, save_file

    weights = folder / "model" / "model.safetensors"
    save_file({name: tensor * 2 for name, tensor in load_file(weights).items()}, weights)
    assert main(capsys, *ask)[0] == 2


def test_too_many_to_print(
    whole: Result, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "many").write_text("i01\n" * 1_001)
    status, _, err = main(capsys, "recommend", whole.folder, "--histories", tmp_path / "many")
    assert status == 1
    assert "give --out" in err


# ---- from Python ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["polars", "pandas"])
def test_a_frame_is_a_data_set_and_travels_with_the_run(
    kind: str, home: Path, tmp_path: Path, whole: Result
) -> None:
    frame: Any = walks()
    if kind == "pandas":
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(frame.to_dict(as_series=False))
    recipe = recore.load(home / "tiny.yaml", set=["trainer.epochs=1"], overlay=framed(frame))
    result = recore.run(recipe, runs=tmp_path)
    assert (result.folder / "data" / "data.frame.parquet").is_file()
    again = open_run(result.folder)
    asked_for = again.recommend([["i01", "i02"]], k=3)
    assert asked_for.equals(result.recommend([["i01", "i02"]], k=3))
    assert again.opened.prepared().card["protocol"] == result.record["card"]["protocol"]
    if kind == "polars":  # in a process that never saw the frame, and with the folder moved
        moved = result.folder.rename(tmp_path / "moved")
        process = command("recommend", moved, "--users", "=u3", "--json", cwd=tmp_path)
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert len(out.splitlines()) == 10


def test_a_run_that_is_not_finished_is_not_opened(home: Path, tmp_path: Path) -> None:
    from recore.engine.prepare import prepare
    from recore.engine.run import run

    def stop(*arguments: Any) -> None:
        raise ZeroDivisionError

    class Stop:
        note = plan = done = staticmethod(lambda *arguments: None)
        epoch = staticmethod(stop)

    recipe = recore.load(home / "tiny.yaml")
    machine = recore.api.Machine()
    assert len(prepare(recipe, 0, machine).parts.train) > 0
    with pytest.raises(ZeroDivisionError):
        run(recipe, 0, machine, tmp_path, Stop())
    latest = tmp_path / "tiny" / "latest"
    with pytest.raises(RunFolderError, match="recore resume"):
        open_run(latest)
    # The best weights so far answer, where they are asked for.
    assert reopen(latest).weights.name == "epoch-0001"
    assert isinstance(
        reopen(latest).scorer.encode(Queries(pl.DataFrame({"item": ["i01"]}), np.array([0, 1]))), torch.Tensor
    )

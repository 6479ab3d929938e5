"""The tokenizer `items`: round trips, growth, disk, and agreement with the tokenizers library."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_tokenizers.items import ItemTokenizer, build
from recore_tokenizers.options import Items
from recore_tokenizers.plugin import recore_tokenizers
from recore_tokenizers.text import plain, words
from tokenizers import Tokenizer as Backend

from recore import Context, DataError, RecoreError
from recore.contracts import Changes, Tokenizer
from recore.data import Interactions

EXAMPLES = settings(deadline=None, max_examples=60)

AWKWARD = [
    "", " ", "a", "A", "a b", " a", "a ", "\n", "[PAD]", "[UNK]", "[MASK]", "[RETIRED 0]", "[RETIRED 1]", "[PAD]\n",
    "[PAD] a", "\\", "\\\\", "\\[PAD]", "\\\\[UNK]", "\\[RETIRED 0]", "\\a", "$1", "${1}", "é", "e\u0301", "日本", "7",
    "007", "\x00", "\x1f", "🙂", "ﬁ", "<pad>",
]  # fmt: skip
strings = st.sampled_from(AWKWARD) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
integers = st.integers(-3, 12) | st.sampled_from([2**63 - 1, -(2**63), 2**53 + 1])
policies: st.SearchStrategy[Literal["keep", "drop"]] = st.sampled_from(["keep", "drop"])


@st.composite
def fitted(draw: st.DrawFn, fewest: int = 1) -> tuple[ItemTokenizer, list[Any]]:
    """A tokenizer, and the distinct items it was fitted on, in the order drawn."""
    some = draw(st.lists(draw(st.sampled_from([strings, integers])), min_size=fewest, max_size=12))
    tokenizer = ItemTokenizer.fit(pl.Series(some), unknown=draw(policies), mask=draw(st.booleans()))
    return tokenizer, list(dict.fromkeys(some))


def saved(tokenizer: ItemTokenizer, folder: str | Path) -> ItemTokenizer:
    tokenizer.save_pretrained(folder)
    return ItemTokenizer.from_pretrained(folder)


def state(tokenizer: ItemTokenizer) -> tuple[Any, ...]:
    """All that can be seen of a tokenizer."""
    everything = tokenizer.items_of(range(tokenizer.items))
    return (
        tokenizer.vocabulary(),
        everything.to_list(),
        everything.dtype,
        tokenizer.retired.tolist(),
        tokenizer.unknown,
        tuple(tokenizer.specials),
        tokenizer.tokens,
        tokenizer.item_ids(everything).tolist(),
    )


# ---- numbers and round trips -----------------------------------------------------------------------------


@EXAMPLES
@given(fitted())
def test_every_item_has_an_id_of_its_own_in_the_order_of_ids(
    example: tuple[ItemTokenizer, list[Any]],
) -> None:
    tokenizer, items = example
    ordered = sorted(items)  # integers by value, strings by code point
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.items == len(items)
    assert tokenizer.tokens == len(tokenizer) == len(items) + len(tokenizer.specials)
    assert tokenizer.items_of(range(len(items))).to_list() == ordered
    assert tokenizer.item_ids(ordered).tolist() == list(range(len(items)))
    assert [(s.name, s.id, s.trainable) for s in tokenizer.specials][:2] == [
        ("pad", 0, False),
        ("unknown", 1, False),
    ]
    assert [s.trainable for s in tokenizer.specials[2:]] == [True] * (len(tokenizer.specials) - 2)


@EXAMPLES
@given(fitted(), st.data())
def test_decoding_undoes_encoding(example: tuple[ItemTokenizer, list[Any]], data: st.DataObject) -> None:
    tokenizer, items = example
    history = data.draw(st.lists(st.sampled_from(items), max_size=20))
    tokens = tokenizer.encode(history)
    assert tokens.dtype == np.int64
    assert tokens.tolist() == [tokenizer.item_ids([item])[0] + len(tokenizer.specials) for item in history]
    assert tokenizer.decode(tokens).to_list() == history
    specials = [special.id for special in tokenizer.specials]
    assert tokenizer.decode(specials).to_list() == [None] * len(specials)


@EXAMPLES
@given(fitted(), st.lists(strings), st.lists(integers))
def test_unknown_items_are_the_unknown_row_and_have_no_item_id(
    example: tuple[ItemTokenizer, list[Any]], texts: list[str], numbers: list[int]
) -> None:
    tokenizer, items = example
    asked: list[Any] = numbers if tokenizer.item_type == "integer" else texts
    for token, item_id, item in zip(tokenizer.encode(asked), tokenizer.item_ids(asked), asked, strict=True):
        assert (token == 1) == (item_id == -1) == (item not in items)
    assert tokenizer.items_of(tokenizer.item_ids(asked)).to_list() == [
        i if i in items else None for i in asked
    ]


@EXAMPLES
@given(fitted(), st.data())
def test_batches_follow_the_policy(example: tuple[ItemTokenizer, list[Any]], data: st.DataObject) -> None:
    tokenizer, items = example
    stranger: Any = 99 if tokenizer.item_type == "integer" else "no such item"
    histories = data.draw(st.lists(st.lists(st.sampled_from([*items, stranger]), max_size=6), max_size=4))
    batch = tokenizer.encode_batch(histories)
    expected = [
        [
            item if item != stranger else None
            for item in history
            if item != stranger or tokenizer.unknown == "keep"
        ]
        for history in histories
    ]
    assert [row.to_list() for row in tokenizer.decode_batch(batch)] == expected
    if histories:
        assert tokenizer(histories) == {"input_ids": [row.tolist() for row in batch]}
        assert tokenizer(histories[0]) == {"input_ids": batch[0].tolist()}


@EXAMPLES
@given(st.lists(strings, min_size=1), st.lists(integers, min_size=1), st.randoms())
def test_only_the_set_of_items_counts(texts: list[str], numbers: list[int], random: Any) -> None:
    for items in (texts, numbers):
        more: list[Any] = [*items, *items[:2]]
        random.shuffle(more)
        assert state(ItemTokenizer.fit(pl.Series(more))) == state(ItemTokenizer.fit(pl.Series(items)))


def test_arrays_and_series_of_other_widths_are_taken() -> None:
    tokenizer = ItemTokenizer.fit(pl.Series([300, 7]))
    for dtype in (pl.Int16, pl.UInt16, pl.Int32, pl.UInt64):
        assert tokenizer.encode(pl.Series([7, 300], dtype=dtype)).tolist() == [2, 3]
    assert tokenizer.encode(np.array([7, 300], dtype=np.int32)).tolist() == [2, 3]
    assert tokenizer.encode(pl.Series([2**63], dtype=pl.UInt64)).tolist() == [1]
    assert tokenizer.encode([]).tolist() == []
    assert tokenizer.encode(pl.Series([7, None])).tolist() == [2, 1]
    text = ItemTokenizer.fit(pl.Series(["b", "a"], dtype=pl.Categorical))
    assert text.encode(np.array(["a", "b"])).tolist() == [2, 3]
    assert text.encode(pl.Series(["b"], dtype=pl.Enum(["b"]))).tolist() == [3]
    assert text.decode([2]).dtype == pl.String


# ---- adding and removing ---------------------------------------------------------------------------------


@st.composite
def grown(draw: st.DrawFn) -> tuple[ItemTokenizer, list[tuple[list[Any], list[Any]]]]:
    """A tokenizer, and rounds of items added and removed: removed ones may come back, at once or later."""
    tokenizer, live = draw(fitted(fewest=2))
    kind: Any = integers if tokenizer.item_type == "integer" else strings
    rounds = []
    for _ in range(draw(st.integers(1, 4))):
        removed = draw(st.lists(st.sampled_from(live), unique=True, max_size=3)) if live else []
        live = [item for item in live if item not in removed]
        pool = st.sampled_from(removed) | kind if removed else kind
        added = draw(
            st.lists(pool.filter(lambda item, held=tuple(live): item not in held), unique=True, max_size=3)
        )
        live = [*live, *added]
        rounds.append((added, removed))
    return tokenizer, rounds


@EXAMPLES
@given(grown())
def test_growth_keeps_ids_and_never_gives_one_twice(example: Any) -> None:
    tokenizer, rounds = example
    whose = dict(enumerate(tokenizer.items_of(range(tokenizer.items)).to_list()))
    now = {item: number for number, item in whose.items()}
    retired: list[int] = []
    for added, removed in rounds:
        tokens = tokenizer.tokens
        moved = tokenizer.resize(Changes(added=added, removed=removed))
        retired += [now.pop(item) for item in removed]
        for item in added:
            now[item] = len(whose)
            whose[len(whose)] = item
        assert tokenizer.item_ids(list(now)).tolist() == list(now.values())
        assert tokenizer.items_of(range(tokenizer.items)).to_list() == list(whose.values())
        assert tokenizer.retired.tolist() == sorted(retired)
        assert moved.old.tolist() == [*range(tokens), *[-1] * len(added)]
        assert moved.retired.tolist() == [number + len(tokenizer.specials) for number in sorted(retired)]
        with tempfile.TemporaryDirectory() as folder:
            loaded = saved(tokenizer, folder)
        assert state(loaded) == state(tokenizer)
        tokenizer = loaded  # so that what is on disk is what goes on growing


def test_a_removed_item_stays_readable_until_it_is_added_again() -> None:
    tokenizer = ItemTokenizer.fit(pl.Series(["a", "b"]))
    tokenizer.resize(Changes(removed=["a"]))
    assert tokenizer.encode(["a"]).tolist() == [2]
    assert tokenizer.items == 2
    tokenizer.resize(Changes(added=["a"]))
    assert tokenizer.encode(["a"]).tolist() == [4]
    assert tokenizer.decode([2, 4]).to_list() == ["a", "a"]
    assert tokenizer.vocabulary() == ["[PAD]", "[UNK]", "[RETIRED 0]", "b", "a"]
    assert tokenizer.retired.tolist() == [0]


def test_changes_that_cannot_be_made_change_nothing_and_are_told_at_once() -> None:
    tokenizer = ItemTokenizer.fit(pl.Series([1, 2, 3]))
    tokenizer.resize(Changes(removed=[3]))
    before = state(tokenizer)
    with pytest.raises(DataError) as caught:
        tokenizer.resize(Changes(added=[1, 2, 9], removed=[3, 7]))
    assert str(caught.value).split("\n") == [
        "1 items to be removed are unknown: 7",
        "1 items to be removed were removed before: 3",
        "2 items to be added are there already: 1, 2",
    ]
    wrong: list[tuple[Sequence[Any], str]] = [
        ([5, 5], "1 items to be added stand twice: 5"),
        (["5"], "expected integer item ids, as those of the training events, got String"),
        ([5, "6"], "expected item ids of one type, got int and str"),
        ([True], "expected item ids that are integers or strings, got bool"),
        ([None], "1 items to be added are missing or out of range"),
    ]
    for added, message in wrong:
        with pytest.raises(DataError, match=message):
            tokenizer.resize(Changes(added=added))
    assert state(tokenizer) == before


# ---- the tokenizers library and the disk -----------------------------------------------------------------


@EXAMPLES
@given(grown(), st.lists(strings), st.lists(integers))
def test_the_library_reads_the_same_ids_from_the_same_file(
    example: Any, texts: list[str], numbers: list[int]
) -> None:
    tokenizer, rounds = example
    for added, removed in rounds:
        tokenizer.resize(Changes(added=added, removed=removed))
    asked: list[Any] = [*tokenizer.items_of(range(tokenizer.items)).to_list()]
    asked += numbers if tokenizer.item_type == "integer" else texts
    spelled = words(pl.Series(asked)).to_list()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        library = Backend.from_file(f"{folder}/tokenizer.json")
    assert library.get_vocab_size() == tokenizer.tokens
    for backend in (library, tokenizer.backend):
        assert backend.encode(spelled, is_pretokenized=True).ids == tokenizer.encode(asked).tolist()
    assert library.id_to_token(0) == "[PAD]"
    assert library.token_to_id("[UNK]") == 1


@EXAMPLES
@given(st.lists(strings, unique=True, min_size=1))
def test_words_are_injective_and_never_reserved(items: list[str]) -> None:
    spelled = words(pl.Series(items)).to_list()
    assert len(set(spelled)) == len(items)
    assert [plain(word) for word in spelled] == items
    assert not {"", "[PAD]", "[UNK]", "[MASK]", "[RETIRED 0]"} & set(spelled)


def test_the_configuration_says_what_the_vocabulary_cannot(tmp_path: Path) -> None:
    tokenizer = ItemTokenizer.fit(pl.Series([5, 6]), unknown="drop", mask=True)
    tokenizer.resize(Changes(added=[5], removed=[5]))
    tokenizer.save_pretrained(tmp_path / "new" / "folder")
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    config = json.loads((tmp_path / "new" / "folder" / "tokenizer_config.json").read_text())
    assert config == {
        "tokenizer_class": "recore_tokenizers.ItemTokenizer",
        "format": 1,
        "item_type": "integer",
        "unknown": "drop",
        "specials": [
            {"name": "pad", "id": 0, "word": "[PAD]", "trainable": False},
            {"name": "unknown", "id": 1, "word": "[UNK]", "trainable": False},
            {"name": "mask", "id": 2, "word": "[MASK]", "trainable": True},
        ],
        "items": 3,
        "retired": [0],
        "superseded": {"0": 5},
    }


def test_broken_folders_are_refused_in_words(tmp_path: Path) -> None:
    tokenizer = ItemTokenizer.fit(pl.Series([5, 6, 7]))

    def broken(message: str, **config: Any) -> None:
        saved(tokenizer, tmp_path)
        path = tmp_path / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
        with pytest.raises(RecoreError, match=message) as caught:
            ItemTokenizer.from_pretrained(tmp_path)
        assert caught.value.exit_status == 2

    broken("expected format 1, got 2", format=2)
    broken("do not agree", items=4)
    broken("does not hold a whole tokenizer", specials=[])
    broken("does not hold a whole tokenizer", superseded=None)
    broken("does not hold a whole tokenizer", retired="all")
    broken("do not agree", retired=[7])
    broken("do not agree", unknown="guess")
    broken("do not agree", superseded={"0": 9})
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(RecoreError, match="cannot be read as JSON"):
        ItemTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("[]")
    with pytest.raises(RecoreError, match="expected a JSON object, got list"):
        ItemTokenizer.from_pretrained(tmp_path)
    with pytest.raises(RecoreError, match=r"tokenizer_config\.json is not there"):
        ItemTokenizer.from_pretrained(tmp_path / "nowhere")


# ---- errors, building, listing ---------------------------------------------------------------------------


def test_questions_of_the_wrong_type_are_refused() -> None:
    tokenizer = ItemTokenizer.fit(pl.Series([5, 6]))
    for asked in (["5"], np.array([5.0])):
        with pytest.raises(DataError, match="expected integer item ids"):
            tokenizer.encode(asked)
    with pytest.raises(
        DataError, match="expected string item ids, as those of the training events, got Int64"
    ):
        ItemTokenizer.fit(pl.Series(["5"])).item_ids([5])
    with pytest.raises(DataError, match="expected tokens from 0 to 3, got 4"):
        tokenizer.decode([4])
    with pytest.raises(DataError, match="expected tokens from 0 to 3, got -1"):
        tokenizer.decode([-1])
    with pytest.raises(DataError, match="expected item ids from -1 to 1, got 2"):
        tokenizer.items_of([2])
    with pytest.raises(DataError, match="integers or strings, got Float64"):
        ItemTokenizer.fit(pl.Series([0.5]))
    with pytest.raises(DataError, match="1 of 2 items to be tokenized are missing"):
        ItemTokenizer.fit(pl.Series([1, None]))
    with pytest.raises(DataError, match="no items"):
        ItemTokenizer.fit(pl.Series([], dtype=pl.Int64))


def test_it_is_fitted_on_the_training_events() -> None:
    log = Interactions.from_frame(pl.DataFrame({"user": [1, 1, 2], "item": ["b", "a", "c"]}))
    made = build(Items(unknown="drop", mask=True), Context(interactions=log.rows(np.array([0, 1]))))
    assert made.items_of(range(made.items)).to_list() == ["a", "b"]
    assert (made.unknown, [s.name for s in made.specials]) == ("drop", ["pad", "unknown", "mask"])
    assert repr(made) == (
        "ItemTokenizer(2 string items, 0 retired, special rows pad, unknown, mask, unknown items: drop)"
    )
    with pytest.raises(DataError, match="fitted on training events"):
        build(Items(), Context())
    with pytest.raises(ValueError, match="unknown"):
        Items(unknown="guess")  # type: ignore[arg-type]  # the point


def test_the_public_name() -> None:
    import recore_tokenizers as package

    assert package.ItemTokenizer is ItemTokenizer
    with pytest.raises(AttributeError, match="no attribute 'Items'"):
        package.Items  # noqa: B018  # asking is the point


def test_listing_is_light() -> None:
    assert [component.name for component in recore_tokenizers()] == ["items"]
    code = (
        "import sys, recore_tokenizers.plugin as plugin; list(plugin.recore_tokenizers()); "
        "print(sorted({'torch', 'polars', 'tokenizers', 'numpy'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_a_million_items_are_looked_up_in_bulk() -> None:
    """A loop in Python would be seen by its calls: none of the items becomes a Python object."""
    items = pl.Series(np.random.default_rng(0).permutation(1_000_000))
    tokenizer = ItemTokenizer.fit(items)
    tokens = tokenizer.encode(items)
    assert np.array_equal(tokens, items.to_numpy() + 2)
    assert tokenizer.decode(tokens).equals(items)

"""A cycle of items is memorised through real recipes; losses add up; accumulated steps equal large ones."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from engine_helpers import Small, framed, walks

import recore
from recore.api import Machine, Result
from recore.engine.prepare import Prepared, prepare
from recore.ragged import Batch, Targets
from recore.sequential import SequentialModel, SequentialTraining

CYCLE = 16


def cycle() -> pl.DataFrame:
    """A user for each place of the cycle, who walks on from there for ten steps."""
    rows = [(user, (user + step) % CYCLE) for user in range(CYCLE) for step in range(10)]
    return pl.DataFrame(rows, schema=["user", "item"], orient="row")


@pytest.mark.parametrize(
    "overlay",
    [
        {},
        {
            "loss": {"use": "recore-losses:bce"},
            "sampler": {"use": "recore-samplers:uniform", "count": 4, "exclude": "target"},
        },
        {"batcher": {"use": "recore-batchers:padded", "users": 8}},
    ],
    ids=["ce", "bce", "padded"],
)
def test_a_cycle_is_memorised(overlay: dict[str, Any], small: Small) -> None:
    result = small(
        {
            **framed(cycle()),
            "model": {"embedder": {"width": 16}, "encoder": {"dropout": 0.0}},
            "trainer": {"epochs": 25, "learning_rate": 0.03},
            **overlay,
        }
    )
    assert result.test["ndcg@10"] == 1.0
    assert result.record["validation"]["ndcg@10"] == 1.0
    # And what it says of a user who comes next is the next item.
    assert result.recommend([[3, 4, 5]], k=1)["item"].to_list() == [6]


# ---- losses and steps ----------------------------------------------------------------------------------------


def prepared(home: Path, overlay: dict[str, Any], precision: Any = "float64") -> Prepared:
    recipe = recore.load(home / "tiny.yaml", overlay=overlay)
    return prepare(recipe, 0, Machine(precision=precision))


def training(of: Prepared, tmp_path: Path) -> tuple[SequentialModel, SequentialTraining]:
    from recore.engine.report import Silent
    from recore.engine.rundir import RunFolder

    model = of.model()
    assert isinstance(model, SequentialModel)
    return model, SequentialTraining(model, of.fit(RunFolder(tmp_path), Silent()))


def gradients(of: Prepared, tmp_path: Path, numbers: range) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The gradient of one step over some batches of the first epoch, and what was reported."""
    model, side = training(of, tmp_path)
    batches = [batch for number in numbers for batch in side.draw(0, number)]
    reported = side.backward(batches, side.weights(batches), 1)
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, dict(reported)


def agree(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], bound: float = 1e-9) -> None:
    """Equal up to `bound` of the largest absolute value over all tensors."""
    assert set(a) == set(b)
    scale = max(float(tensor.abs().max()) for tensor in a.values())
    assert scale > 0
    assert max(float((a[name] - b[name]).abs().max()) for name in a) <= bound * scale


STILL = {"model": {"encoder": {"dropout": 0.0}}}
BCE = {
    "loss": {"use": "recore-losses:bce"},
    "sampler": {"use": "recore-samplers:uniform", "exclude": "target"},
}


def test_accumulated_batches_are_one_large_batch(home: Path, tmp_path: Path) -> None:
    """The same histories in batches of unlike sizes, and in one: the same gradient, the same report."""
    parts = prepared(home, {**STILL, "batcher": {"users": 8}})
    large = prepared(home, {**STILL, "batcher": {"users": 30}})
    _, side = training(parts, tmp_path)
    assert side.batches(0) == 4
    accumulated, reported = gradients(parts, tmp_path, range(4))
    at_once, whole = gradients(large, tmp_path, range(1))
    agree(accumulated, at_once)
    assert reported["ce"] == pytest.approx(whole["ce"], rel=1e-12)
    with pytest.raises(AssertionError):  # the mean of the batches' own means would be another gradient
        agree(gradients(parts, tmp_path, range(1))[0], at_once)


def test_accumulated_training_ends_with_the_weights_of_large_batches(small: Small) -> None:
    machine = Machine(precision="float64")
    few = small({**STILL, "trainer": {"accumulate": 4, "epochs": 2}}, machine=machine)
    large = small({**STILL, "batcher": {"users": 30}, "trainer": {"epochs": 2}}, machine=machine)
    from safetensors.torch import load_file

    a, b = (load_file(result.folder / "model" / "model.safetensors") for result in (few, large))
    assert [name for name in a if a[name].is_floating_point()]
    for name in [name for name in a if not a[name].is_floating_point()]:
        assert torch.equal(a.pop(name), b.pop(name))
    agree(a, b, 1e-7)  # Adam divides by small numbers
    assert few.record["epochs"] == large.record["epochs"] == 2


def test_losses_in_a_list_add_up_by_their_weights(home: Path, tmp_path: Path) -> None:
    uniform = {"use": "recore-samplers:uniform", "exclude": "target"}
    ce = {"name": "all", "use": "recore-losses:ce", "weight": 0.25}
    bce = {"name": "some", "use": "recore-losses:bce", "weight": 2.0, "sampler": uniform}
    both, reported = gradients(prepared(home, {**STILL, "loss": [ce, bce]}), tmp_path, range(1))
    first, _ = gradients(prepared(home, {**STILL, "loss": [{**ce, "weight": 1.0}]}), tmp_path, range(1))
    second, _ = gradients(prepared(home, {**STILL, "loss": [{**bce, "weight": 1.0}]}), tmp_path, range(1))
    agree(both, {name: 0.25 * first[name] + 2.0 * second[name] for name in first})
    assert set(reported) == {"all", "some"}


def test_two_losses_through_a_run(small: Small) -> None:
    uniform = {"use": "recore-samplers:uniform", "exclude": "target"}
    result = small(
        {
            "loss": [
                {"name": "all", "use": "recore-losses:ce", "weight": 0.5},
                {"name": "some", "use": "recore-losses:bce", "weight": 0.5, "sampler": uniform},
                {"name": "none", "use": "recore-losses:ce", "weight": 0},
            ]
        }
    )
    import json

    lines = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert [set(line["losses"]) for line in lines] == [{"all", "some"}] * 3
    assert lines[-1]["losses"]["all"] < lines[0]["losses"]["all"]


# ---- layouts -------------------------------------------------------------------------------------------------

POSITIONS = {
    "none": {"use": "recore-positions:none"},
    "start-absolute": {"use": "recore-positions:start-absolute"},
    "relative-bias": {"use": "recore-positions:relative-bias", "max_distance": 3, "initial": "normal"},
}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("position", list(POSITIONS))
@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_ragged_and_padded_give_the_same_gradient(
    position: str, side: str, loss: str, home: Path, tmp_path: Path
) -> None:
    """The batches are those of the same histories; only the rectangle differs."""
    overlay = {
        "model": {"encoder": {"dropout": 0.0, "layers": 2, "heads": 2}, "position": POSITIONS[position]},
        **(BCE if loss == "bce" else {}),
    }
    ragged = prepared(home, {**overlay, "batcher": {"use": "recore-batchers:ragged", "users": 8}})
    padded = prepared(
        home, {**overlay, "batcher": {"use": "recore-batchers:padded", "users": 8, "side": side}}
    )
    a, reported = gradients(ragged, tmp_path, range(2))
    b, again = gradients(padded, tmp_path, range(2))
    agree(a, b)
    assert reported[loss] == pytest.approx(again[loss], rel=1e-9)


def test_columns_of_a_left_padded_window_are_another_position(home: Path, tmp_path: Path) -> None:
    """`window-absolute` claims padding on the right only: there it is `start-absolute`, on the left it is not."""

    def grads(use: str, side: str) -> dict[str, torch.Tensor]:
        overlay = {
            "model": {"encoder": {"dropout": 0.0}, "position": {"use": f"recore-positions:{use}"}},
            "batcher": {"use": "recore-batchers:padded", "users": 8, "side": side},
        }
        return gradients(prepared(home, overlay), tmp_path, range(1))[0]

    agree(grads("window-absolute", "right"), grads("start-absolute", "right"))
    with pytest.raises(AssertionError):
        agree(grads("window-absolute", "left"), grads("start-absolute", "left"))


def hidden(of: Prepared, histories: list[list[str]], tmp_path: Path) -> list[torch.Tensor]:
    """States of each history's events, all in one batch."""
    import numpy as np

    from recore.histories import tokenise
    from recore.ragged import Batch

    model, _ = training(of, tmp_path)
    torch.manual_seed(0)
    for parameter in model.parameters():  # far from the small initial weights, where all would look alike
        torch.nn.init.normal_(parameter, std=0.5)
    items = pl.DataFrame({"item": [item for history in histories for item in history]})
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])])
    assert of.context.tokenizer is not None
    view = tokenise(items, offsets.astype(np.int64), of.context.tokenizer).laid_out(model.layout)
    with torch.no_grad():
        out = model.eval()(Batch({"user": view}), view)
    return [out[a:b] for a, b in pairwise(offsets)]


@pytest.mark.parametrize("batcher", ["ragged", "padded"])
@pytest.mark.parametrize("position", list(POSITIONS))
def test_the_assembled_model_is_causal_and_alone_in_its_batch(
    position: str, batcher: str, home: Path, tmp_path: Path
) -> None:
    overlay = {
        "model": {"encoder": {"dropout": 0.0, "layers": 2}, "position": POSITIONS[position]},
        "batcher": {"use": f"recore-batchers:{batcher}", "users": 8},
    }
    of = prepared(home, overlay)
    history = ["i01", "i02", "i03", "i04", "i05"]
    others = [["i09"], ["i08", "i07", "i06", "i05", "i04", "i03"]]
    (alone,) = hidden(of, [history], tmp_path)
    scale = float(alone.abs().max())
    assert scale > 0.1
    _, among, _ = hidden(of, [others[0], history, others[1]], tmp_path)
    assert float((among - alone).abs().max()) <= 1e-9 * scale
    for length in (1, 3):
        (prefix,) = hidden(of, [history[:length]], tmp_path)
        assert float((prefix - alone[:length]).abs().max()) <= 1e-9 * scale
        (changed,) = hidden(of, [[*history[:length], *reversed(history[length:])]], tmp_path)
        assert float((changed[:length] - alone[:length]).abs().max()) <= 1e-9 * scale
        assert float((changed[length:] - alone[length:]).abs().max()) > 1e-3 * scale


def test_pad_and_unknown_rows_stay_zero(small: Small) -> None:
    """Weight decay and momentum through a run; an unknown item's vector is then exactly zero."""
    result: Result = small(
        {**framed(walks()), "trainer": {"optimiser": "adamw", "weight_decay": 0.1, "epochs": 2}}
    )
    model: Any = result.opened.scorer.model  # type: ignore[attr-defined]  # the sequential scorer's
    import numpy as np

    from recore.histories import tokenise
    from recore.ragged import Batch

    view = tokenise(
        pl.DataFrame({"item": ["nowhere", "i01"]}), np.array([0, 2]), result.opened.scorer.tokenizer
    )
    with torch.no_grad():
        rows = model.embedder.embed(Batch({"user": view}), view)
    assert rows[0].abs().max() == 0
    assert rows[1].abs().max() > 0


def test_samplers_observe_every_batch_of_a_step() -> None:
    """With accumulation a step has several batches; a sampler that watches exposure must see all of them."""

    from recore.sequential import SequentialTraining, Weighted

    seen: list[Any] = []

    class Watch:
        def observe(self, batch: Any, model: Any) -> None:
            seen.append(batch)

    training: Any = object.__new__(SequentialTraining)
    training.model = None
    training.losses = [Weighted("a", "user", None, 1.0, Watch()), Weighted("b", "user", None, 1.0, None)]  # type: ignore[arg-type]
    none = torch.zeros(0, dtype=torch.int64)
    batches = [Batch({}, Targets(none, none, torch.zeros(0), view)) for view in ("user", "user", "item")]
    training.stepped(batches, 0)
    assert seen == batches[:2]

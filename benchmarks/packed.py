"""Where one pass equals a pass for each prefix, and by how much it does not elsewhere; and by how much the positions
that are not invariant to something are not.

python benchmarks/packed.py [--json FILE]

`relative-keys-values` with `tied: true`, packed, beside `prediction-absolute` on every prefix by itself: one encoder
of recore-sasrec, the same weights and vectors, three histories of 20, 7 and 13 random inputs, float64. Differences are
of the largest state, and of the largest gradient over inputs, vectors and all weights. Nothing is trained.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from recore_positions.absolute import Absolute, build_prediction, build_start, build_window
from recore_positions.options import PredictionAbsolute, StartAbsolute, WindowAbsolute
from recore_positions.relative_options import RelativeKeysValues
from recore_positions.shaw import TiedVectors, build_keys_values
from recore_sasrec.encoder import build
from recore_sasrec.options import TERMS, Sasrec
from torch import Tensor, nn

from recore import Context, Facts
from recore.contracts import Placed, Position
from recore.ragged import Batch, Layout, View, offsets_of

HELD, WIDTH, HEADS = (20, 7, 13), 16, 2
NORMS: Mapping[str, Mapping[str, Any]] = {
    "none before attention": {"norm": "post", "residual": "input"},
    "queries": {"norm": "queries"},
    "queries, keys, values": {"norm": "all", "residual": "input"},
}
CASES = (  # norm, layers, dropout on the inputs, vectors
    ("none before attention", 1, 0.0, max(HELD)),
    ("queries", 1, 0.0, max(HELD)),
    ("queries", 1, 0.0, 8),
    ("queries", 1, 0.2, max(HELD)),
    ("queries, keys, values", 1, 0.0, max(HELD)),
    ("none before attention", 2, 0.0, max(HELD)),
    ("queries", 2, 0.0, max(HELD)),
    ("queries, keys, values", 2, 0.0, max(HELD)),
    ("queries", 3, 0.0, max(HELD)),
)


def context(layers: int = 1) -> Context:
    """What parts are told."""
    facts = Facts(
        width=WIDTH,
        history=max(HELD),
        heads=HEADS,
        layers=layers,
        causal=True,
        terms=TERMS,
        one_prediction_per_row=True,
    )
    return Context(0, "model.position", facts)


def view_of(held: tuple[int, ...], layout: Layout | None = None) -> View:
    """Histories of these lengths; the token of an event is its row."""
    offsets = offsets_of(torch.tensor(held))
    return View({"token": torch.arange(sum(held))}, offsets, layout or Layout())


def short(value: float) -> float:
    """Four digits: what is beyond them is the machine's."""
    return float(f"{value:.3e}")


def apart(norm: str, layers: int, dropout: float, vectors: int, std: float) -> tuple[float, float]:
    """How far states and gradients of the two forms are apart. Dropout has one mask per event for both."""
    told, random = context(layers), torch.Generator().manual_seed(1)
    encoder: Any = build(Sasrec(heads=HEADS, layers=layers, dropout=0.0, **NORMS[norm]), told).double()
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.add_(torch.randn(weight.shape, generator=random, dtype=torch.float64), alpha=0.3)
    absolute = build_prediction(PredictionAbsolute(std=std), told).double()
    tied = build_keys_values(RelativeKeysValues(max_distance=vectors - 1, std=std, tied=True), told).double()
    assert isinstance(tied, TiedVectors)
    with torch.no_grad():
        tied.weight.copy_(absolute.weight[:vectors])
    x, way = (torch.randn(sum(HELD), WIDTH, generator=random, dtype=torch.float64) for _ in range(2))
    x.requires_grad_()
    kept = (torch.rand(sum(HELD), WIDTH, generator=random) >= dropout).double() / (1 - dropout)
    packed = view_of(HELD)
    prefixes = packed.cut(packed.offsets[:-1][packed.sequence], torch.arange(packed.events) + 1)

    def outcome(position: nn.Module, view: View, rows: Tensor) -> tuple[Tensor, list[Tensor]]:
        """States of all events, and gradients: of inputs, vectors (beyond a bound 0), weights."""
        assert isinstance(position, Position)
        batch = Batch({"user": view})
        placed = position.place(x[view["token"]], batch, view)
        inputs = placed.inputs * kept[view["token"]]
        states = encoder.encode(inputs, batch, view, Placed(inputs, placed.terms))[rows]
        wanted = [x, *position.parameters(), *encoder.parameters()]
        found = list(torch.autograd.grad((states * way).sum(), wanted, materialize_grads=True))
        found[1] = F.pad(found[1], (0, 0, 0, max(HELD) - len(found[1])))
        return states.detach(), found

    loop, wanted = outcome(absolute, prefixes, prefixes.last)
    once, found = outcome(tied, packed, torch.arange(packed.events))
    largest = max(float(gradient.abs().max()) for gradient in wanted)
    gaps = [float((a - b).abs().max()) for a, b in zip(found, wanted, strict=True)]
    states = float((once - loop).abs().max() / loop.abs().max())
    return short(states), short(max(gaps) / largest)


def moved(position: Absolute, before: View, after: View, kept: slice) -> float:
    """How far what is added to the events `kept` of `before`, all of `after`, is apart, of the largest vector."""
    one, other = (
        position.place(
            torch.zeros(view.events, WIDTH, dtype=torch.float64), Batch({"user": view}), view
        ).inputs
        for view in (before, after)
    )
    return short(float((one[kept] - other).detach().abs().max() / position.weight.detach().abs().max()))


def broken() -> list[dict[str, Any]]:
    """A row per claim that an absolute position does not make."""
    told = context()
    start = build_start(StartAbsolute(), told).double()
    window = build_window(WindowAbsolute(), told).double()
    prediction = build_prediction(PredictionAbsolute(), told).double()
    ten, nine, left, right = (10,), (9,), Layout("left", 12), Layout("right", 12)
    old, new, all_ = slice(1, None), slice(None, -1), slice(None)
    return [
        {"position": name, "change": change, "moved": moved(position, before, after, kept)}
        for name, change, position, before, after, kept in (
            ("start-absolute", "the oldest event dropped", start, view_of(ten), view_of(nine), old),
            ("prediction-absolute", "the latest event removed", prediction, view_of(ten), view_of(nine), new),
            (
                "window-absolute",
                "a column more on the left",
                window,
                view_of(ten, left),
                view_of(ten, Layout("left", 13)),
                all_,
            ),
            (
                "window-absolute",
                "padded left, the latest event removed",
                window,
                view_of(ten, left),
                view_of(nine, left),
                new,
            ),
            (
                "window-absolute",
                "padded right, the oldest event dropped",
                window,
                view_of(ten, right),
                view_of(nine, right),
                old,
            ),
        )
    ]


def main() -> None:
    """Print a row per case, and write all of it where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    file: Path | None = parser.parse_args().json
    torch.set_num_threads(1)
    rows = []
    for norm, layers, dropout, vectors in CASES:
        row: dict[str, Any] = {
            "norm": norm,
            "layers": layers,
            "dropout": str(dropout or "none"),
            "vectors": "all" if vectors == max(HELD) else f"clipped at {vectors}",
        }
        for size, std in (("alike", 1.0), ("a tenth", 0.1)):
            states, gradients = apart(norm, layers, dropout, vectors, std)
            row[size] = {"states": states, "gradients": gradients}
        rows.append(row)
        print(
            f"{norm:24s} {layers} layers, dropout {dropout}, {row['vectors']:12s} states "
            f"{row['alike']['states']:.1e}, gradients {row['alike']['gradients']:.1e}; vectors a tenth as large "
            f"{row['a tenth']['states']:.1e}, {row['a tenth']['gradients']:.1e}"
        )
    absolute = broken()
    for one in absolute:
        print(f"{one['position']:20s} {one['change']:40s} {one['moved']:.2f} of the largest vector")
    if file:
        about = {"lengths": HELD, "width": WIDTH, "heads": HEADS}
        text = json.dumps({**about, "packed": rows, "absolute": absolute}, indent=1)
        file.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

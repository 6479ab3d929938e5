"""What the encoder costs, counted from `block.py`. Free of torch.

Legend: `T` events, `C` rows of the frame, `R` rows that are asked of the last block, `d` width, `f` inner width of
the feed-forward net. Numbers moved are reads and writes of element-wise passes: a layer norm 2 forward and 5
backward, a residual sum 3 and 2, dropout 8 and 3 (its factors are made, and kept), the gradient of a bias 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recore import Costs, Load
from recore.costs import Attention, Product, linear
from recore_sasrec.details import Details

if TYPE_CHECKING:
    from recore_sasrec.options import Sasrec

NORM, RESIDUAL, DROPOUT = (2.0, 5.0), (3.0, 2.0), (8.0, 3.0)  # forward, backward: numbers moved for each of x
CALLS = 25.0  # of a block, forward, beside attention's groups
GROUPS = 110.0  # of attention's rectangles: about ten of like length, each with views of q, k and v


def counted(options: Sasrec, details: Details, width: int, load: Load) -> Costs:
    """The costs of all blocks on one batch."""
    d, f, layers = float(width), float(options.ffn_width or width), options.layers
    rows = load.cells
    # The last block computes only the rows that are asked for, where these are not all.
    some = load.asked < load.events
    asked = [rows] * (layers - 1) + [load.asked if some else rows]
    products: list[Product] = []
    moved = kept = drawn = 0.0
    rate = bool(options.dropout) and load.training
    places = details.dropouts if rate else ()
    # Causal attention on a CPU keeps its weights where they are few (`recore.attention.kept`, and `.tiles`).
    visible = options.heads * (rows / max(load.sequences, 1.0) / 2 + 32)
    few = 10 * d if load.terms or "attention" in places else 8 * d / options.heads
    weights = visible if options.causal and visible <= few else 0.0
    for ask in asked:
        products += linear(ask, d, d, load.training)  # Q
        products += linear(rows, d, 2 * d, load.training)  # K, V
        if details.output_projection:
            products += linear(ask, d, d, load.training)
        products += linear(ask, d, f, load.training)
        products += linear(ask, f, d, load.training)
        passes = [(ask * d, NORM)] * 2 + [(ask * d, RESIDUAL)] * 2 + [(ask * f, (2.0, 3.0))]
        for place, inner in (("attention-output", d), ("hidden", f), ("output", d)):
            if place in places:
                passes.append((ask * inner, DROPOUT))
                drawn += ask * inner / 4
                kept += 2 * ask * inner
        if load.training:
            passes.append((ask * (2 * d + f) + rows * 2 * d, (0.0, 1.0)))  # biases
            passes.append((rows * d, (0.0, 9.0)))  # gradients of q, k and v put together, inputs' added up
        moved += sum(count * (forward + backward * load.training) for count, (forward, backward) in passes)
        # What the backward pass reads: inputs of norms, maps and attention; q, k, v, result in rectangles.
        kept += ask * (4 * d + 2 * f) + rows * 1.1 * (4 * d + weights)
    if "input" in places:
        moved += rows * d * sum(DROPOUT)
        drawn += rows * d / 4
        kept += rows * d
    if details.final_norm:
        moved += load.asked * d * (NORM[0] + NORM[1] * load.training)
        kept += load.asked * d
    # Where the last block asks for few rows, its keys and values are laid out all the same.
    full = layers - 1 + (1.0 if not some else max(0.3, load.asked / max(load.events, 1.0)))
    parameters = layers * (
        2 * 2 * d
        + (3 + details.output_projection) * d * d
        + (3 + details.output_projection) * d * details.attention_bias
        + 2 * d * f
        + f
        + d
    )
    return Costs(
        products=tuple(products),
        attention=Attention(
            options.heads,
            width,
            full,
            options.causal,
            options.dropout if "attention" in places else 0.0,
        ),
        moved=moved * load.number,
        drawn=drawn,
        calls=layers * (CALLS * (3 if load.training else 1) + GROUPS * (2 if load.training else 1)),
        kept=kept * load.number,
        # Forward, the inputs, q, k, v and their rectangles, and the result as it is put together.
        brief=rows * (12.0 if not load.training else 8.0) * d * load.number,
        parameters=parameters + 2 * d * details.final_norm,
        large=f"{layers} layers of {width} wide over {load.events:,.0f} events at once",
        instead="fewer layers, a smaller width, or a shorter model.history.last",
    )

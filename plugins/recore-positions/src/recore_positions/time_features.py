"""The position `time-features`.

Legend: `T` events, `H` heads, `F` waves; a tile has `b` sequences, `r` rows and `c` keys.

With x the phase of a row and y that of a key, a sin(x − y) + b cos(x − y) is

    (a sin x + b cos x) cos y + (b sin x − a cos x) sin y

so the rows' sides `(T, H, 2F)` and the keys' `(T, 2F)` are made once for each layer, and a tile multiplies them.
Phases count from the first event of a history: any other moment of the same history gives the same differences.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from recore import Context
from recore.attention import PairFunction
from recore.contracts import Placed
from recore.ragged import Batch, View
from recore_positions.checked import heads_and_layers
from recore_positions.time_options import TimeFeatures
from recore_positions.times import key_times, row_times

NAME = "time-features"
DAY = 86400.0


def build(options: TimeFeatures, context: Context) -> Waves:
    """Build for the encoder's heads and layers. Raises RecipeError where the encoder states none, or takes no functions
    of pairs."""
    return Waves(options, context)


class Waves(nn.Module):
    """`weight (layers or 1, H, 2, F)`: a and b of each wave. `drift (F,)`: how far, in radians, the phase at a gap of
    `horizon` lags behind where it started (above 0: the period is longer)."""

    def __init__(self, options: TimeFeatures, context: Context) -> None:
        super().__init__()
        problems = options.problems(context.facts)
        heads, layers = heads_and_layers(NAME, problems, context, options.layers)
        self.query_time = options.query_time
        # In the log's own units of time.
        day = DAY / options.unit
        self.periods, self.horizon = tuple(day * days for days in options.periods), day * options.horizon
        weight = torch.empty(layers, heads, 2, len(self.periods))
        self.weight = nn.Parameter(weight.normal_(0.0, options.std, generator=context.generator("weights")))
        self.drift = nn.Parameter(torch.zeros(len(self.periods)))

    def rates(self) -> Tensor:
        """Radians per unit of time, float64 `(F,)`."""
        start = torch.tensor(self.periods, dtype=torch.float64, device=self.drift.device)
        longer = self.drift.double() * start / (2 * math.pi * self.horizon)
        return 2 * math.pi / (start * longer.exp())

    def place(self, x: Tensor, batch: Batch, view: View) -> Placed:
        """The inputs unchanged, and a pair function per layer or one for all."""
        held = key_times(view, NAME)
        asked = row_times(batch, view, self.query_time, NAME)
        first = torch.arange(view.events, device=held.device) - view.place
        rates = self.rates()

        def waves(time: Tensor) -> tuple[Tensor, Tensor]:
            phase = (time - held[first]).double()[:, None] * rates
            return phase.cos().to(self.weight.dtype), phase.sin().to(self.weight.dtype)

        cos, sin = waves(held)
        row_cos, row_sin = (cos, sin) if asked is held else waves(asked)
        keys = torch.cat([cos, sin], 1)
        terms = []
        for a, b in (table.unbind(1) for table in self.weight.unbind(0)):
            rows = torch.cat(
                [
                    row_sin[:, None] * a + row_cos[:, None] * b,
                    row_sin[:, None] * b - row_cos[:, None] * a,
                ],
                -1,
            )
            terms.append((PairFunction(_product, (rows, keys)),))
        return Placed(x, terms)


def _product(rows: Tensor, keys: Tensor, asking: Tensor, held: Tensor) -> Tensor:
    """Of rows `(b, r)` and keys `(b, c)`, sides `asking (T, H, 2F)` and `held (T, 2F)`: `(b, H, r, c)`."""
    heads, size = asking.shape[1:]
    left = asking.index_select(0, rows.flatten()).view(len(rows), -1, size)  # (b, r · H, 2F)
    right = held.index_select(0, keys.flatten()).view(len(keys), -1, size)
    found = torch.bmm(left, right.transpose(1, 2))
    return found.view(len(rows), -1, heads, keys.shape[1]).transpose(1, 2)

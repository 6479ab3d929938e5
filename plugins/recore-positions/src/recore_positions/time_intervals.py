"""The position `time-intervals`. Legend: `T` events, `H` heads, `e` = d/H; a tile has `b` sequences, `r` rows and `c`
keys."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recore import Context
from recore.attention import Buckets, PairTable
from recore.contracts import Placed
from recore.ragged import Batch, View
from recore_positions.checked import heads_and_layers
from recore_positions.time_options import TimeIntervals
from recore_positions.times import key_times

NAME = "time-intervals"


def build(options: TimeIntervals, context: Context) -> IntervalVectors:
    """Build for the encoder's heads, layers and width. Raises RecipeError where the encoder states none, or takes no
    pair tables."""
    return IntervalVectors(options, context)


def shortest_gaps(view: View, time: Tensor) -> Tensor:
    """The shortest gap above 0 between two events in a row, of each event's history up to and including itself:
    float64 `(T,)`, ∞ where there is none yet."""
    gap = torch.full(time.shape, torch.inf, dtype=torch.float64, device=time.device)
    if not view.events:
        return gap
    between = (time[1:] - time[:-1]).abs().to(torch.float64)
    counts = (view.place[1:] > 0) & (between > 0)
    gap[1:] = torch.where(counts, between, gap[1:])
    # The least of 1, 2, 4, … events back, each made of two of the one before, within the sequence.
    reach, longest = 1, int(view.lengths.max())
    while reach < longest:
        earlier = torch.where(view.place[reach:] >= reach, gap[:-reach], torch.inf)
        gap = torch.cat([gap[:reach], torch.minimum(gap[reach:], earlier)])
        reach *= 2
    return gap


class IntervalVectors(nn.Module):
    """`key`, `value` `(layers or 1, max_interval + 1, H, e)`: the vectors of each interval."""

    def __init__(self, options: TimeIntervals, context: Context) -> None:
        super().__init__()
        width, problems = context.facts.width, options.problems(context.facts)
        if width is None or (context.facts.heads and width % context.facts.heads):
            problems.append(
                f"position {NAME!r} needs heads that divide the width, got heads {context.facts.heads} and width "
                f"{width} (use an embedder that states its width, a multiple of the encoder's heads)"
            )
        heads, layers = heads_and_layers(NAME, problems, context, options.layers)
        assert width is not None
        self.most = options.max_interval
        random = context.generator("weights")
        for side in ("key", "value"):
            drawn = torch.empty(layers, self.most + 1, heads, width // heads)
            self.register_parameter(side, nn.Parameter(drawn.normal_(0.0, options.std, generator=random)))

    def place(self, x: Tensor, batch: Batch, view: View) -> Placed:
        """The inputs unchanged, and per layer, or for all, a pair table `(max_interval + 1, H, e)` into keys and one
        into values."""
        index = view.remember((NAME, self.most), lambda: self._index(view))
        key, value = self.get_parameter("key"), self.get_parameter("value")
        return Placed(
            x,
            [
                (PairTable("key", keys, index=index), PairTable("value", values, index=index))
                for keys, values in zip(key.unbind(0), value.unbind(0), strict=True)
            ],
        )

    def _index(self, view: View) -> Buckets:
        """Reads times and scales by the rows' numbers."""
        time, most = key_times(view, NAME), self.most
        scale = shortest_gaps(view, time)

        def interval(row: Tensor, key: Tensor) -> Tensor:
            gap = (time[row] - time[key]).abs().to(torch.float64)
            return gap.div_(scale[row]).clamp_(max=most).long()

        rows = torch.arange(view.events, device=time.device)
        return Buckets(interval, rows, rows)

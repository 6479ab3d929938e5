"""Positions that add a learned vector per place: from the window's edge, from the start of the history, or back
from the prediction.

Legend: `T` events, `W` rows of the table (the model's history), `d` width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recore import Context, Problem, RecipeError
from recore.contracts import Placed
from recore.ragged import Batch, View
from recore_positions.checked import refuse
from recore_positions.options import PredictionAbsolute, StartAbsolute, WindowAbsolute


def build_window(options: WindowAbsolute, context: Context) -> Absolute:
    """Columns of the rectangle. Raises RecipeError where the history has no bound or the width is unknown."""
    return WindowPositions("window-absolute", options.std, context)


def build_start(options: StartAbsolute, context: Context) -> Absolute:
    """Places from the start. Raises RecipeError where the history has no bound or the width is unknown."""
    return StartPositions("start-absolute", options.std, context)


def build_prediction(options: PredictionAbsolute, context: Context) -> Absolute:
    """Places from the prediction. Raises RecipeError where the history has no bound, the width is unknown, or
    the batcher packs."""
    refuse(options.problems(context.facts), context)
    return PredictionPositions("prediction-absolute", options.std, context)


class Absolute(nn.Module):
    """`weight (W, d)`: row `c` is added to the inputs of events at place `c`."""

    def __init__(self, name: str, std: float, context: Context) -> None:
        super().__init__()
        facts = context.facts
        self.name = name
        if not isinstance(facts.history, int) or facts.width is None:
            raise RecipeError(
                Problem(
                    f"position {name!r} needs a bounded history and a known width, got history "
                    f"{facts.history!r} and width {facts.width!r}",
                    path=context.path or "model.position",
                    hint="set model.history.last to a number, and use an embedder that states its width",
                )
            )
        drawn = torch.empty(facts.history, facts.width)
        self.weight = nn.Parameter(drawn.normal_(0.0, std, generator=context.generator("weights")))

    def places(self, view: View) -> Tensor:
        """The row of each event, `(T,)`."""
        raise NotImplementedError

    def place(self, x: Tensor, batch: Batch, view: View) -> Placed:
        """`x + weight[places]`, `(T, d)`. Raises ValueError for a place beyond the table."""
        places, most = view.remember((self.name, "places"), lambda: self._checked(view))
        if most >= self.weight.shape[0]:
            raise ValueError(
                f"position {self.name!r} has vectors for {self.weight.shape[0]} places, but an event "
                f"stands at place {most} (counted from 0): cut histories to the model's history first"
            )
        # On the CPU index_select has the fastest deterministic backward pass; elsewhere its additions race.
        cpu = x.device.type == "cpu"
        return Placed(x + (self.weight.index_select(0, places) if cpu else F.embedding(places, self.weight)))

    def _checked(self, view: View) -> tuple[Tensor, int]:
        places = self.places(view)
        return places, int(places.max()) if places.numel() else 0


class WindowPositions(Absolute):
    """Columns counted from the left edge of the rectangle that the view's layout asks for."""

    def places(self, view: View) -> Tensor:
        """The column of each event, `(T,)`. Raises ValueError where no rectangle is asked for."""
        if view.layout.padding == "none":
            raise ValueError(
                "position 'window-absolute' counts columns of a padded rectangle, but the layout has "
                "`padding: none`: use a batcher that pads, or `start-absolute`"
            )
        return view.layout.slots(view.offsets)


class StartPositions(Absolute):
    """Places counted from the start of each sequence; no layout enters."""

    def places(self, view: View) -> Tensor:
        """How many events stand before each, `(T,)`."""
        return view.place


class PredictionPositions(Absolute):
    """Places counted back from the last row of each sequence, which asks: row 0 of the table is the paper's
    P_1, that of the latest event. One prediction per sequence is the batcher's word (`by-length`)."""

    def places(self, view: View) -> Tensor:
        """How many events stand after each, `(T,)`."""
        return view.lengths[view.sequence] - 1 - view.place

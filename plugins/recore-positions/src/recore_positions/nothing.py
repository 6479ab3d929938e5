"""The position `none`."""

from __future__ import annotations

from torch import Tensor, nn

from recore import Context
from recore.contracts import Placed
from recore.ragged import Batch, View
from recore_positions.options import NoPosition


def build(options: NoPosition, context: Context) -> Nothing:
    """Build it: there is nothing to set."""
    return Nothing()


class Nothing(nn.Module):
    """Leaves inputs as they are."""

    def place(self, x: Tensor, batch: Batch, view: View) -> Placed:
        """The inputs `(T, d)`, and no terms."""
        return Placed(x)

"""The split `validation-left-out`. Legend: `n` targets."""

from __future__ import annotations

import numpy as np
from attrs import evolve

from recore import Context
from recore.contracts import Split, SplitParts
from recore.data import Interactions
from recore_pitfalls.learning_options import ValidationLeftOut


def build(options: ValidationLeftOut, context: Context) -> ValidationLeftOutSplit:
    """Factory."""
    return ValidationLeftOutSplit(context.build(options.split))


class ValidationLeftOutSplit:
    """`inner`: the sound split."""

    def __init__(self, inner: Split) -> None:
        self.inner = inner

    def parts(self, interactions: Interactions) -> SplitParts:
        """The sound parts; histories of test targets end before the first validation target in them."""
        parts = self.inner.parts(interactions)
        test, validated = parts.test, np.sort(parts.validation.target)
        if not len(validated):
            return parts
        # The first validation target at or after the start of each test history, or one past its end.
        place = np.searchsorted(validated, test.start)
        first = np.where(place < len(validated), validated[np.minimum(place, len(validated) - 1)], test.stop)
        cut = evolve(test, stop=np.minimum(test.stop, first))
        return evolve(parts, test=cut)

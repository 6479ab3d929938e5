"""The one way in which a scorer is asked for all scores of many queries: in blocks that bound memory.

Legend: `V` items. Evaluation and recommendation ask alike; neither block changes a score by more than the bound
within which a history scored alone and in a batch agree (`recore.engine.ranks.TIE_BOUND`).
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from recore.contracts.scoring import Queries, Scorer

SCORES_AT_ONCE = 8_000_000  # scores held together
# Queries encoded together, at the least: looking ids up costs the same for few as for many, and with a large
# catalogue a block of scores holds few.
QUERIES_AT_ONCE = 1_024


def scored(scorer: Scorer, queries: Queries) -> Iterator[tuple[int, int, Tensor]]:
    """From, to, and the scores `(to − from, V)` of these queries, block after block."""
    rows = max(1, SCORES_AT_ONCE // max(scorer.tokenizer.items, 1))
    together = max(rows, QUERIES_AT_ONCE)
    for first in range(0, len(queries), together):
        last = min(first + together, len(queries))
        state = scorer.encode(queries.block(first, last))
        for begin in range(first, last, rows):
            end = min(begin + rows, last)
            yield begin, end, scorer.score(state[begin - first : end - first])

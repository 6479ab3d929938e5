"""What known items say: how well each event of a history was predicted from those before it.

Columns that the model fills itself, for parts that read them (`columns()`): of an event `p` of item `i`, whose
state before is `h` (that of the event `p − 1`), scores `s` over all items that are candidates,

    surprise   −log softmax(s)_i, in nats
    rank       how many items score higher than i
    agreement  cos(h, e_i), with e_i the item's row of the table that scores

NaN where there is no evidence: the first event that is read, unknown and retired items. "Revisiting
Self-Attentive Sequential Recommendation", section 4.1. Legend: `T` events, `R` rows, `V` items, `d` width.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor

from recore.builtin import EVIDENCE as EVIDENCE
from recore.contracts.model import Table

SCORES_AT_ONCE = 8_000_000  # scores held at once: bounds memory, not results


@torch.no_grad()
def known_items(
    hidden: Tensor, before: Tensor, item: Tensor, table: Table, names: Collection[str]
) -> dict[str, Tensor]:
    """Columns `(T,)` of the given names, for events of `item (T,)` (−1: none) whose state before stands in row
    `before (T,)` of `hidden (R, d)` (−1: none)."""
    found = {name: hidden.new_full(item.shape, float("nan")) for name in names}
    told = ((before >= 0) & (item >= 0)).nonzero().squeeze(-1)
    if not len(told):
        return found
    for events in torch.split(told, max(1, SCORES_AT_ONCE // table.weight.shape[0])):
        states, items = hidden[before[events]], item[events]
        if "agreement" in found:
            found["agreement"][events] = F.cosine_similarity(states, table.weight[items], dim=1)
        if not {"surprise", "rank"} & set(found):
            continue
        scores = states @ table.weight.T
        if table.bias is not None:
            scores += table.bias
        if table.retired is not None:
            scores.masked_fill_(table.retired, float("-inf"))
        own = scores.gather(1, items[:, None])
        if "rank" in found:
            found["rank"][events] = (scores > own).sum(1).to(hidden.dtype)
        if "surprise" in found:
            found["surprise"][events] = torch.logsumexp(scores, 1) - own.squeeze(1)
    return found

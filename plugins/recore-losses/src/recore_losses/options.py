"""What a recipe may set, and what each loss promises. Free of torch."""

from __future__ import annotations

from attrs import frozen
from attrs.validators import ge

from recore import Costs, Facts, Load, LossClaims, option
from recore.costs import Product


@frozen
class Ce:
    """Cross-entropy over all items:

        total = Σ_n w_n (log Σ_{i not retired} exp s_ni − s_{n, target(n)}),   s_n = W h_n + b

    Computed in blocks of events, the gradient in the same pass as the value: a block of scores stays in the
    cache, is turned into probabilities in place and multiplied into the gradients of h, W and b before the
    next block overwrites it. An N × V matrix never exists: beyond inputs and gradients, memory is that of
    one block. The result does not depend on the block, beyond rounding. Reports `Σ_n w_n` as its weight.
    Negatives are not used.
    """

    block: int = option(
        256,
        validator=ge(1),
        help="Events whose scores are computed together. 256 was the fastest measured for 3,416 items, "
        "64 wide, on two cores (1 MiB of L2 cache each); `benchmarks/ce.py` measures it elsewhere.",
    )
    limit_mib: int = option(
        256,
        validator=ge(1),
        help="Most memory of a block of scores, in MiB: with many items, fewer than `block` events (but at "
        "least one) are taken together.",
    )

    def claims(self) -> LossClaims:
        """Memory grows with N·d + V·d, never N·V; only differences of scores count."""
        return LossClaims(memory="blocks", negatives=False, correction="none", shift_invariant=True)

    def costs(self, facts: Facts, load: Load) -> Costs:
        """Three products with the table for each block, an exponential and six passes over its scores."""
        width, items, count = facts.width or 0, max(facts.items or 1, 1), load.predictions
        block = min(self.block, max(1, self.limit_mib * 2**20 // (items * load.number)), max(count, 1))
        blocks = count / block
        scores = Product(block, width, items, blocks)
        to_hidden, to_weight = Product(block, items, width, blocks), Product(items, block, width, blocks)
        # Gradients to the hidden states and to the table, and their scaled copies; the table's is zeroed.
        gradients = count * width + items * width
        return Costs(
            products=(scores, to_hidden, to_weight),
            moved=(6 * count * items + 8 * count * width + 5 * items * width) * load.number,
            exponentials=count * items,
            calls=14 * blocks + 30,
            kept=gradients * load.number,
            brief=(block * items + gradients) * load.number,
            large=f"N × V scores, {count:,.0f} predictions of {items:,} items, in blocks",
            instead="with many items a loss with negatives is faster (recore-losses:bce and a sampler)",
        )


@frozen
class Bce:
    """Binary cross-entropy of each target against its K negatives (Kang & McAuley 2018, Self-Attentive
    Sequential Recommendation, section III-E):

        total = − Σ_n w_n (log σ(s_{n, target(n)}) + Σ_k keep_nk log(1 − σ(s_{n, draw(n, k)})))

    A sum over predictions, reported with the weight `Σ_n w_n`, so that what is minimised is the mean over
    predictions. The 2018 code divides the positive and the negative terms each by the number of predictions:
    the same for its K = 1. For K > 1 the negatives of a prediction are summed, not averaged, as in the paper; a
    draw that is not kept, or whose item is retired, adds nothing. The scores are not corrected by `log_q`,
    and `log_weight` is not used: what is learned depends on how negatives are drawn, and a draw equal to the
    target counts as a negative unless the sampler excludes it.

    Value and gradient are formed in one pass, in blocks of events.
    """

    def claims(self) -> LossClaims:
        """Memory grows with N·K."""
        return LossClaims(memory="negatives", negatives=True, correction="none")

    def costs(self, facts: Facts, load: Load) -> Costs:
        """Vectors of 1 + K items for each prediction, read, multiplied, and added to the table's gradient."""
        width, items, count = facts.width or 0, facts.items or 0, load.predictions
        pairs = count * (1 + load.negatives)
        gathered = count if load.shared else pairs
        block = min(gathered * width, 2.0**20)
        gradients = count * width + items * width
        products: tuple[Product, ...] = ()
        if load.shared:
            draws = load.negatives
            products = (
                Product(count, width, draws),
                Product(count, draws, width),
                Product(draws, count, width),
            )
        return Costs(
            products=products,
            gathered=2 * gathered * width * load.number,
            moved=(12 * gathered * width + 8 * pairs + 4 * count * width + 5 * items * width) * load.number,
            exponentials=2 * pairs,
            calls=20 * max(1.0, gathered * width / 2**20) + 30,
            kept=gradients * load.number,
            brief=(3 * block + 6 * pairs + gradients) * load.number,
            large=f"{load.negatives:,.0f} negatives for each of {count:,.0f} predictions",
            instead="fewer negatives (sampler.count), or draws that the batch shares (sampler.shared)",
        )

    def problems(self, facts: Facts) -> list[str]:
        """A sampler has to stand before it."""
        if facts.negatives is False:
            return ["needs negatives, but no sampler is set (set `sampler:` beside it)"]
        return []

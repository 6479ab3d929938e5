"""What is taken for parts that do not state their costs. Legend: `N` predictions, `V` items, `K` negatives."""

from __future__ import annotations

from collections.abc import Sequence

from recore.claims import LossClaims
from recore.component import Facts
from recore.costs import Costs, Load, Product, linear


def claimed(claims: LossClaims, facts: Facts, load: Load) -> Costs:
    """What a loss that states no costs takes by its claim of memory: `full` holds N × V scores and their
    probabilities; `blocks` the same work a block at a time; `negatives` N × K."""
    width, items, count = facts.width or 0, facts.items or 0, load.predictions
    others = load.negatives + 1 if claims.memory == "negatives" else items
    scores = count * others
    gradients = (count + items) * width
    held = {"full": scores, "blocks": 0.0, "negatives": scores * width}[claims.memory]
    brief = {"full": 2 * scores, "blocks": min(count, 512.0) * items, "negatives": scores * width}[
        claims.memory
    ]
    products = () if claims.memory == "negatives" else linear(count, width, items, load.training)
    return Costs(
        products=products,
        gathered=2 * scores * width * load.number if claims.memory == "negatives" else 0.0,
        moved=(12 * scores + 4 * gradients) * load.number,
        exponentials=scores,
        calls=40,
        kept=(held + gradients) * load.number,
        brief=(brief + gradients) * load.number,
        large=f"N × {'K' if claims.memory == 'negatives' else 'V'} scores, {count:,.0f} predictions of "
        f"{others:,.0f} items",
        instead={
            "full": "use a blocked loss, one that claims `memory: blocks`, or one with negatives",
            "blocks": "a loss with negatives is faster with many items",
            "negatives": "fewer negatives",
        }[claims.memory],
    )


def of_matrices(shapes: Sequence[tuple[int, ...]], load: Load) -> Costs:
    """A part that states nothing, taken as its matrices applied to every event, one after another."""
    products: list[Product] = []
    for columns, inner in shapes:
        products += linear(load.cells, inner, columns, load.training)
    numbers = load.cells * sum(inner + columns for columns, inner in shapes)
    return Costs(
        products=tuple(products),
        moved=4 * numbers * load.number,
        calls=20.0 * len(shapes),
        kept=2 * numbers * load.number,
        brief=numbers * load.number,
        large="the matrices, on every event,",
    )

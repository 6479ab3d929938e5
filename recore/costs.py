"""What a part costs, as data: what an options class may state for `recore estimate`. Free of torch.

An options class may define `costs(self, facts: Facts, load: Load) -> Costs`: what one batch of the sizes in `load`
costs. It counts; the machine's speed is measured apart (`recore.engine.calibrate`), so a formula holds on every
machine:

    seconds = Σ products 2·rows·inner·columns / rate(shape) + attention, timed + moved / bandwidth
              + gathered / rate of random rows + drawn / rate of the generator + exponentials / their rate
              + calls · overhead of a call
    bytes   = Σ kept of all parts + the largest `brief`

Orders of magnitude are what counts: an element-wise pass more or less does not matter, N × V does.
"""

from __future__ import annotations

from attrs import evolve, field, frozen


@frozen
class Load:
    """The sizes of one batch of one view, as means over batches, in training or in evaluation.

    Args:
        events: T, rows that are embedded and encoded.
        sequences: B.
        asked: rows whose state is wanted: T where every event predicts, B in evaluation.
        cells: rows of the rectangle that the layout asks for; T where it asks for none.
        predictions: N, targets of the losses of this view; in evaluation, queries.
        negatives: K, draws for each prediction, or for the batch where they are `shared`; 0 without a sampler.
        parameters: trained numbers of the whole model, in `tensors` tensors.
        training: whether gradients are formed.
        number: bytes of a float, 4 or 8.
        view: `user`, or another view that the model encodes.
        terms: whether positions of this view add terms to the logits of attention (`Costs.tiles`).
    """

    events: float = 0.0
    sequences: float = 0.0
    asked: float = 0.0
    cells: float = 0.0
    predictions: float = 0.0
    negatives: float = 0.0
    shared: bool = False
    parameters: float = 0.0
    tensors: float = 0.0
    training: bool = True
    number: int = 4
    view: str = "user"
    terms: bool = False


@frozen
class Product:
    """`times` matrix products `(rows, inner) @ (inner, columns)`."""

    rows: float
    inner: float
    columns: float
    times: float = 1.0

    @property
    def flops(self) -> float:
        """Multiplications and additions of all of them."""
        return 2.0 * self.rows * self.inner * self.columns * self.times


@frozen
class Attention:
    """`times` calls of `recore.attention.attend` for all events of the batch (a share of one where only some rows
    ask), forward and in training backward. It is timed on lengths of the data. What is added to the logits, or
    dropout of the weights, leaves the fused kernel for tiles."""

    heads: int
    width: int
    times: float = 1.0
    causal: bool = True
    dropout: float = 0.0


@frozen
class Costs:
    """What one batch costs a part.

    Args:
        products: its matrix products, those of the backward pass included (`linear` gives all three of a map).
        attention: its attention, or None.
        tiles: whether this part (a position) adds terms to the logits of attention.
        moved: bytes that element-wise operations read and write.
        gathered: bytes of rows that are read or added at random places of a table.
        drawn: random numbers of 64 bits.
        exponentials: exponentials, logarithms, logistic functions.
        calls: torch calls, forward and backward.
        kept: bytes held from the forward to the backward pass, for `training` only.
        brief: bytes held for a moment at most, beyond `kept`.
        always: bytes held throughout the run, beyond the parameters and what is built before the first step.
        parameters: its trained numbers; None where only the built part knows.
        state: of a trainer, numbers held for each trained number, beyond it and its gradient.
        negatives, shared: of a sampler, K and whether the batch shares the draws.
        large: what it is that grows, in words, as in `N × V scores`.
        instead: what to change where that is large.
    """

    products: tuple[Product, ...] = ()
    attention: Attention | None = None
    tiles: bool = False
    moved: float = 0.0
    gathered: float = 0.0
    drawn: float = 0.0
    exponentials: float = 0.0
    calls: float = 0.0
    kept: float = 0.0
    brief: float = 0.0
    always: float = 0.0
    parameters: float | None = None
    state: float = 0.0
    negatives: float = 0.0
    shared: bool = False
    large: str = field(default="", kw_only=True)
    instead: str = field(default="", kw_only=True)

    @property
    def flops(self) -> float:
        """Multiplications and additions in matrix products, attention left out."""
        return sum(product.flops for product in self.products)

    def times(self, count: float) -> Costs:
        """The time of `count` such batches; bytes stay those of one."""
        return evolve(
            self,
            products=tuple(evolve(product, times=product.times * count) for product in self.products),
            attention=None
            if self.attention is None
            else evolve(self.attention, times=self.attention.times * count),
            moved=self.moved * count,
            gathered=self.gathered * count,
            drawn=self.drawn * count,
            exponentials=self.exponentials * count,
            calls=self.calls * count,
        )


def linear(
    rows: float, inner: float, columns: float, training: bool, times: float = 1.0
) -> tuple[Product, ...]:
    """The products of `times` linear maps `(rows, inner) → (rows, columns)`: in training also those of the
    gradients of the inputs and of the weights."""
    forward = Product(rows, inner, columns, times)
    if not training:
        return (forward,)
    return forward, Product(rows, columns, inner, times), Product(inner, rows, columns, times)

"""The smallest sound embedder, positions and encoder.

Legend: `T` events, `B` sequences, `V` items, `d` width, `H` heads.
"""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.nn.functional import linear

from recore.attention import PROJECT, KeyBias, PairFunction, PairTable, Rotate, attend
from recore.claims import BOTH_SIDES, EncoderClaims, PositionClaims
from recore.component import Context, Facts, option
from recore.contracts.data import RowMap
from recore.contracts.model import Placed, Table
from recore.ragged import Batch, View

TERMS = frozenset({*(term.name for term in (Rotate, PairTable, KeyBias, PairFunction)), PROJECT})


@frozen
class Lookup:
    """One vector per item and per special row that trains; the other special rows are zero because they have
    no vector."""

    width: int = option(8, help="d.")

    def provides(self) -> Facts:
        """The width of hidden states."""
        return Facts(width=self.width)


class TinyEmbedder(nn.Module):
    """Implements `recore.contracts.Embedder`. `weight (tokens, d)` is multiplied by 0 or 1 row by row."""

    live: Tensor
    scored: Tensor
    retired: Tensor

    def __init__(self, options: Lookup, context: Context) -> None:
        super().__init__()
        tokenizer = context.tokenizer
        if tokenizer is None:
            raise ValueError("an embedder is built for a tokenizer, and there is none in this context")
        random = context.generator("weights")
        self.weight = nn.Parameter(torch.randn(tokenizer.tokens, options.width, generator=random) * 0.5)
        self.context = context
        special = torch.zeros(tokenizer.tokens, dtype=torch.bool)
        special[[row.id for row in tokenizer.specials]] = True
        frozen_rows = [row.id for row in tokenizer.specials if not row.trainable]
        live = torch.ones(tokenizer.tokens, dtype=torch.bool)
        live[frozen_rows] = False
        self.register_buffer("live", live)
        self.register_buffer("scored", ~special)
        self.register_buffer("retired", torch.zeros(tokenizer.tokens, dtype=torch.bool))

    def embed(self, batch: Batch, view: View) -> Tensor:
        """`(T, d)`."""
        token = view["token"]
        return self.weight[token] * self.live[token][:, None]

    def table(self) -> Table:
        """The rows of items."""
        return Table(self.weight[self.scored], None, self.retired[self.scored])

    @torch.no_grad()
    def resize(self, rows: RowMap) -> dict[str, RowMap]:
        """Rows move as told; fresh ones are drawn, and score."""
        old = torch.from_numpy(rows.old)
        source, fresh = old.clamp(min=0), old < 0
        drawn = torch.randn(
            len(old), self.weight.shape[1], generator=self.context.generator("resize", len(old))
        )
        weight = torch.where(fresh[:, None], drawn.to(self.weight) * 0.5, self.weight[source])
        self.weight = nn.Parameter(weight)
        self.live, self.scored = self.live[source] | fresh, self.scored[source] | fresh
        gone = self.retired[source] & ~fresh
        gone[torch.from_numpy(rows.retired)] = True
        self.retired = gone
        return {"weight": rows}


@frozen
class Start:
    """A learned vector for each place from the start, added to the inputs."""

    def claims(self) -> PositionClaims:
        """Later events and padding change nothing; earlier ones move all places."""
        return PositionClaims("start", prefix_consistent=True, padding=BOTH_SIDES)

    def problems(self, facts: Facts) -> list[str]:
        """One vector per place needs a bound on places."""
        return ["needs a bounded history"] if facts.history == "all" else []


class TinyStart(nn.Module):
    """Implements `recore.contracts.Position`."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        history, width = context.facts.history, context.facts.width
        if not isinstance(history, int) or width is None:
            raise ValueError(f"needs a bounded history and a width, got {history} and {width}")
        self.weight = nn.Parameter(torch.randn(history, width, generator=context.generator("weights")) * 0.5)

    def place(self, x: Tensor, batch: Batch, view: View) -> Placed:
        """Inputs change, no terms."""
        return Placed(x + self.weight[view.place])


@frozen
class Distance:
    """A learned number per head and distance from the asking event, added to the logit."""

    longest: int = option(16, help="Distances at or beyond this share one number.")

    def claims(self) -> PositionClaims:
        """Only distances enter."""
        return PositionClaims("prediction", prefix_consistent=True, shift_invariant=True, padding=BOTH_SIDES)

    def problems(self, facts: Facts) -> list[str]:
        """Needs an encoder with pair tables."""
        missing = facts.terms is not None and PairTable.name not in facts.terms
        return ["needs an encoder that takes pair tables"] if missing else []


class TinyDistance(nn.Module):
    """Implements `recore.contracts.Position`."""

    def __init__(self, options: Distance, context: Context) -> None:
        super().__init__()
        self.longest = options.longest
        heads = context.facts.heads or 1
        buckets = 2 * options.longest + 1
        self.weight = nn.Parameter(torch.randn(buckets, heads, generator=context.generator("weights")) * 0.5)

    def place(self, x: Tensor, batch: Batch, view: View) -> Placed:
        """The inputs stay, one term for all layers."""
        return Placed(x, [(PairTable("logit", self.weight, low=-self.longest, high=self.longest),)])


@frozen
class Blocks:
    """Causal attention and a feed-forward map, `layers` times, each added to what was there:

    y = x + attend(LN(x)) O,   z = y + tanh(LN(y) W)
    """

    layers: int = option(2, help="Blocks.")
    heads: int = option(2, help="Attention heads; they divide the width.")

    def claims(self) -> EncoderClaims:
        """All that an encoder can claim."""
        return EncoderClaims(causal=True, padding=BOTH_SIDES, batch_invariant=True, rows=True, terms=TERMS)

    def provides(self) -> Facts:
        """What positions want to know."""
        return Facts(heads=self.heads, layers=self.layers, causal=True, terms=TERMS)

    def problems(self, facts: Facts) -> list[str]:
        """Heads divide the width."""
        bad = facts.width is not None and facts.width % self.heads
        return [f"{self.heads} heads do not divide a width of {facts.width}"] if bad else []


class Block(nn.Module):
    """One block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o, self.w = (nn.Linear(width, width) for _ in range(5))

    def forward(self, x: Tensor, view: View, placed: Placed, layer: int, rows: Tensor | None) -> Tensor:
        """`(T, d)`, or `(R, d)` with `rows (R,)`."""
        keyed = self.norm(x)
        asking, own = (keyed, x) if rows is None else (keyed[rows], x[rows])
        q, k, v = (
            m(n).unflatten(-1, (self.heads, -1))
            for m, n in ((self.q, asking), (self.k, keyed), (self.v, keyed))
        )
        mixed = attend(
            q,
            k,
            v,
            view,
            placed.layer(layer),
            rows=rows,
            key_map=lambda table: linear(table, self.k.weight),
            value_map=lambda table: linear(table, self.v.weight),
        )
        y = own + self.o(mixed.flatten(1))
        out: Tensor = y + self.w(self.second_norm(y)).tanh()
        return out


class TinyEncoder(nn.Module):
    """Implements `recore.contracts.Encoder`."""

    def __init__(self, options: Blocks, context: Context) -> None:
        super().__init__()
        if context.facts.width is None:
            raise ValueError("an encoder is built when the width is known")
        self.blocks = nn.ModuleList(Block(context.facts.width, options.heads) for _ in range(options.layers))

    def encode(
        self, x: Tensor, batch: Batch, view: View, placed: Placed, rows: Tensor | None = None
    ) -> Tensor:
        """Only the last block may leave rows out."""
        hidden = placed.inputs
        last = len(self.blocks) - 1
        for layer, block in enumerate(self.blocks):
            hidden = block(hidden, view, placed, layer, rows if layer == last else None)
        return hidden


def embedder(options: Lookup, context: Context) -> TinyEmbedder:
    """Factory."""
    return TinyEmbedder(options, context)


def start(options: Start, context: Context) -> TinyStart:
    """Factory."""
    return TinyStart(context)


def distance(options: Distance, context: Context) -> TinyDistance:
    """Factory."""
    return TinyDistance(options, context)


def encoder(options: Blocks, context: Context) -> TinyEncoder:
    """Factory."""
    return TinyEncoder(options, context)

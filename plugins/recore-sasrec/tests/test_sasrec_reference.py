"""The encoder against others' forms of it: the padded PyTorch code, and loops written from the formulas."""

from __future__ import annotations

import math
from itertools import accumulate

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_sasrec.affine import Affine
from recore_sasrec.block import Block
from recore_sasrec.encoder import SasrecEncoder, build
from recore_sasrec.options import Sasrec
from torch import Tensor, nn

from recore import Context, Facts
from recore.attention import PairTable
from recore.contracts import Placed
from recore.ragged import Batch, Layout, View, offsets_of

WIDTH = 8


class Padded(nn.Module):
    """The blocks of pmixer/SASRec.pytorch on a padded `(B, W, d)`: norm on the query of
    torch.nn.MultiheadAttention only, the normalised query added, 1 × 1 convolutions."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.query_norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-8) for _ in range(layers))
        self.attentions = nn.ModuleList(nn.MultiheadAttention(width, heads) for _ in range(layers))
        self.ffn_norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-8) for _ in range(layers))
        self.first = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(layers))
        self.second = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(layers))
        self.last_norm = nn.LayerNorm(width, eps=1e-8)

    def forward(self, x: Tensor) -> Tensor:
        columns = x.shape[1]
        later = ~torch.tril(torch.ones(columns, columns, dtype=torch.bool))
        parts = zip(self.query_norms, self.attentions, self.ffn_norms, self.first, self.second, strict=True)
        for query_norm, attention, ffn_norm, first, second in parts:
            x = x.transpose(0, 1)
            q = query_norm(x)
            x = (q + attention(q, x, x, attn_mask=later)[0]).transpose(0, 1)
            x = ffn_norm(x)
            x = x + second(F.relu(first(x.transpose(1, 2)))).transpose(1, 2)
        hidden: Tensor = self.last_norm(x)
        return hidden

    def copy_from(self, built: SasrecEncoder) -> None:
        """Take our weights under their names."""
        state: dict[str, Tensor] = {}
        names = {
            "attention_norm.weight": "query_norms.{}.weight",
            "attention_norm.bias": "query_norms.{}.bias",
            "qkv.weight": "attentions.{}.in_proj_weight",
            "qkv.bias": "attentions.{}.in_proj_bias",
            "output.weight": "attentions.{}.out_proj.weight",
            "output.bias": "attentions.{}.out_proj.bias",
            "ffn_norm.weight": "ffn_norms.{}.weight",
            "ffn_norm.bias": "ffn_norms.{}.bias",
            "first.weight": "first.{}.weight",
            "first.bias": "first.{}.bias",
            "second.weight": "second.{}.weight",
            "second.bias": "second.{}.bias",
        }
        for key, value in built.state_dict().items():
            if key.startswith("blocks."):
                _, number, name = key.split(".", 2)
                wide = value.unsqueeze(-1) if name in ("first.weight", "second.weight") else value
                state[names[name].format(number)] = wide
            else:
                state[key.replace("final_norm", "last_norm")] = value
        self.load_state_dict(state)


def built_with(options: Sasrec, dtype: torch.dtype, seed: int = 0) -> SasrecEncoder:
    built = build(options, Context(seed, "model.encoder", Facts(width=WIDTH))).to(dtype).eval()
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=noise, dtype=dtype))
    return built


def batch_of(lengths: list[int], layout: Layout | None = None) -> tuple[Batch, View]:
    offsets = offsets_of(torch.tensor(lengths))
    view = View({"token": torch.zeros(sum(lengths), dtype=torch.int64)}, offsets, layout or Layout())
    return Batch({"user": view}), view


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
@pytest.mark.parametrize("lengths", [[6, 6, 6], [1, 5, 3, 9]])
@pytest.mark.parametrize("padding", ["none", "right"])
def test_the_preset_pytorch_equals_the_padded_pytorch_code(
    dtype: torch.dtype, bound: float, lengths: list[int], padding: str
) -> None:
    """Whatever stands to the right of an event is unseen, so histories of any length can be compared."""
    built = built_with(Sasrec(preset="pytorch", heads=2, layers=3), dtype)
    theirs = Padded(WIDTH, 2, 3).to(dtype)
    theirs.copy_from(built)
    batch, view = batch_of(lengths, Layout("right") if padding == "right" else None)
    x = torch.randn(view.events, WIDTH, dtype=dtype, generator=torch.Generator().manual_seed(1))
    x.requires_grad_()
    rectangle = Layout("right").rectangle(view.ragged(x))
    expected = theirs(rectangle)[Layout("right").mask(view.offsets)]
    hidden = built.encode(x, batch, view, Placed(x))
    assert float((hidden - expected).detach().abs().max()) <= bound * float(expected.detach().abs().max())
    seed = torch.randn(hidden.shape, dtype=dtype, generator=torch.Generator().manual_seed(2))
    ours = torch.autograd.grad((hidden * seed).sum(), x)[0]
    other = torch.autograd.grad((expected * seed).sum(), x)[0]
    assert float((ours - other).abs().max()) <= 5 * bound * float(other.abs().max())


def bias_of(affine: Affine) -> Tensor:
    return affine.weight.new_zeros(affine.weight.shape[0]) if affine.bias is None else affine.bias


def pieces_of(x: Tensor, lengths: list[int]) -> list[Tensor]:
    return [x[stop - length : stop] for length, stop in zip(lengths, accumulate(lengths), strict=True)]


def attention_loop(
    q: Tensor, keyed: Tensor, block: Block, heads: int, causal: bool, key_table: Tensor | None = None
) -> Tensor:
    """softmax(Q Kᵀ / √(d/H)) V of one sequence `(n, d)`, row by row and head by head. `key_table (m, d)`: row
    min(i − j, m − 1), projected, is added to key j for row i."""
    wq, wk, wv = (block.qkv.weight[n * WIDTH : (n + 1) * WIDTH] for n in range(3))
    bias = bias_of(block.qkv)
    bq, bk, bv = (bias[n * WIDTH : (n + 1) * WIDTH] for n in range(3))
    size = WIDTH // heads
    out = []
    for i in range(len(q)):
        seen = i + 1 if causal else len(q)
        query = wq @ q[i] + bq
        pieces = []
        for h in range(heads):
            own = slice(h * size, (h + 1) * size)
            logits = []
            for j in range(seen):
                key = wk @ keyed[j] + bk
                if key_table is not None:
                    key = key + wk @ key_table[min(max(i - j, 0), len(key_table) - 1)]
                logits.append(query[own] @ key[own] / math.sqrt(size))
            weights = torch.stack(logits).softmax(0)
            values = torch.stack([(wv @ keyed[j] + bv)[own] for j in range(seen)])
            pieces.append(weights @ values)
        out.append(torch.cat(pieces))
    mixed = torch.stack(out)
    return mixed if block.output is None else mixed @ block.output.weight.T + bias_of(block.output)


def feed_forward_loop(x: Tensor, block: Block) -> Tensor:
    inner = torch.clamp(x @ block.first.weight.T + bias_of(block.first), min=0)
    return inner @ block.second.weight.T + bias_of(block.second)


def norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias


def slow(
    built: SasrecEncoder, x: Tensor, options: Sasrec, form: str, key_table: Tensor | None = None
) -> Tensor:
    """One sequence `(n, d)`, each form written out on its own."""
    for block in built.blocks:
        assert isinstance(block, Block)
        heads, causal = options.heads, options.causal
        first, second = block.attention_norm, block.ffn_norm
        if form == "paper":  # section III: x + g(LN(x)) for each layer g
            a = norm(x, first)
            x = x + attention_loop(a, a, block, heads, causal, key_table)
            x = x + feed_forward_loop(norm(x, second), block)
        elif form == "code":  # keys of the raw input; the normalised input is added
            a = norm(x, first)
            x = a + attention_loop(a, x, block, heads, causal, key_table)
            b = norm(x, second)
            x = b + feed_forward_loop(b, block)
        else:  # post
            x = norm(x + attention_loop(x, x, block, heads, causal, key_table), first)
            x = norm(x + feed_forward_loop(x, block), second)
    return x if built.final_norm is None else norm(x, built.final_norm)


@settings(deadline=None, max_examples=25)
@given(
    case=st.sampled_from(
        [
            (Sasrec(preset="paper"), "paper"),
            (Sasrec(preset="paper", heads=2, causal=False, final_norm=True), "paper"),
            (Sasrec(preset="tensorflow", heads=4), "code"),
            (Sasrec(preset="pytorch", heads=2, ffn_width=5), "code"),
            (Sasrec(causal=False), "code"),
            (Sasrec(heads=2), "code"),
            (Sasrec(norm="post", residual="input", heads=2), "post"),
        ]
    ),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_it_equals_loops_written_from_the_formula(
    case: tuple[Sasrec, str], lengths: list[int], seed: int
) -> None:
    options, form = case
    built = built_with(options, torch.float64, seed)
    batch, view = batch_of(lengths)
    x = torch.randn(view.events, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    expected = torch.cat([slow(built, piece, options, form) for piece in pieces_of(x, lengths)]).detach()
    hidden = built.encode(x, batch, view, Placed(x)).detach()
    assert float((hidden - expected).abs().max()) <= 1e-9 * float(expected.abs().max())


@pytest.mark.parametrize("case", [(Sasrec(preset="paper"), "paper"), (Sasrec(heads=2), "code")])
def test_tables_of_the_input_space_go_through_the_key_map_without_its_bias(case: tuple[Sasrec, str]) -> None:
    options, form = case
    built = built_with(options, torch.float64)
    batch, view = batch_of([4, 2])
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, WIDTH, dtype=torch.float64, generator=generator)
    table = torch.randn(3, WIDTH, dtype=torch.float64, generator=generator)
    terms = (PairTable("key", table, low=0, high=2, project=True),)
    expected = torch.cat(
        [slow(built, piece, options, form, table) for piece in pieces_of(x, [4, 2])]
    ).detach()
    hidden = built.encode(x, batch, view, Placed(x, [terms])).detach()
    assert float((hidden - expected).abs().max()) <= 1e-9 * float(expected.abs().max())

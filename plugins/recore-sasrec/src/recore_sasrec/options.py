"""Options of the encoder `sasrec`. Free of torch."""

from __future__ import annotations

from typing import Any, Literal

import attrs
from attrs import frozen

from recore import BOTH_SIDES, Costs, EncoderClaims, Facts, Load, option
from recore_sasrec.counted import counted
from recore_sasrec.details import (
    PRESETS,
    Details,
    FfnBias,
    Initial,
    InitialQkv,
    Norm,
    Place,
    Residual,
    Scale,
)

# The names of `recore.attention`'s terms, which cannot be imported without torch; a test compares them.
TERMS = frozenset({"rotate", "pair-table", "key-bias", "pair-function", "project"})


def _at_least_one(instance: object, attribute: Any, value: int | None) -> None:
    if value is not None and value < 1:
        raise ValueError(f"`{attribute.name}`: expected at least 1, got {value}")


def _above_zero(instance: object, attribute: Any, value: float | None) -> None:
    if value is not None and not value > 0:
        raise ValueError(f"`{attribute.name}`: expected a number above 0, got {value}")


def _rate(instance: object, attribute: Any, value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"`{attribute.name}`: expected a rate from 0 up to, not including, 1, got {value}")


@frozen
class Sasrec:
    """The self-attentive blocks of SASRec. Each of `layers` blocks is attention, then a feed-forward net,
    row by row; with `norm: queries` and `residual: normalised` (the codes):

        a = LN(x);   y = a + attend(Q(a), K(x), V(x)) · O
        b = LN(y);   z = b + W2 · relu(W1 · b)

    with `norm: all` and `residual: input` (the paper) a = LN(x) feeds Q, K and V, and x itself is added; with
    `norm: post` it is LN(x + attend(…)) and LN(y + …). A final LN follows where `final_norm`.

    An option left unset is as in `preset`:

    | option | no preset | paper | tensorflow | pytorch |
    |---|---|---|---|---|
    | norm | queries | all | queries | queries |
    | residual | normalised | input | normalised | normalised |
    | final_norm | true | false | true | true |
    | attention_bias | true | false | true | true |
    | output_projection | true | false | false | true |
    | scale | sqrt-width | none | sqrt-width | sqrt-width |
    | dropouts | input, hidden, output | input, attention-output, output | input, attention, hidden, output | input, attention, hidden, output |
    | initial | normal | xavier-uniform | xavier-uniform | xavier-normal |
    | initial_qkv | packed-xavier-uniform | xavier-uniform | xavier-uniform | packed-xavier-normal |
    | ffn_bias | zero | zero | zero | uniform |
    | epsilon | 1e-8 | 1e-8 | 1e-8 | 1e-8 |

    Sources: Kang & McAuley 2018, section III (silent on epsilon and initial weights, which are here those of
    its code); kang205/SASRec (TensorFlow); pmixer/SASRec.pytorch; no preset is the latter as adapted by
    Klenitskiy & Vasilev 2023, without dropout in attention. What a preset cannot hold: initial item and
    position vectors are options of the embedder and of the position; both codes pad on the left.

    No row of padding enters attention. Where the batcher asks for no rectangle everything runs on the events
    alone; where it asks for one, all row-wise work runs on the rectangle, as padded codes do, with equal
    results.
    """  # noqa: E501

    preset: Literal["paper", "tensorflow", "pytorch"] | None = option(
        None, help="Whose details hold where an option is unset."
    )
    layers: int = option(2, help="Blocks.", validator=_at_least_one)
    heads: int = option(1, help="Attention heads; they divide the width.", validator=_at_least_one)
    causal: bool = option(True, help="Whether an event attends to itself and earlier events only.")
    dropout: float = option(0.1, help="The rate of every dropout in `dropouts`.", validator=_rate)
    ffn_width: int | None = option(
        None, help="Width inside the feed-forward net; unset: that of the inputs.", validator=_at_least_one
    )
    activation: Literal["relu", "gelu"] = option("relu", help="Inside the feed-forward net.")
    norm: Norm | None = option(
        None,
        help="Layer norm before attention on `queries` only, or on queries, keys and values (`all`); or "
        "`post`: after each residual sum.",
    )
    residual: Residual | None = option(
        None, help="What a sublayer's output is added to: its `input`, or the `normalised` input."
    )
    final_norm: bool | None = option(None, help="Whether a layer norm follows the last block.")
    attention_bias: bool | None = option(None, help="Whether Q, K, V (and O) have biases.")
    output_projection: bool | None = option(None, help="Whether heads are mixed by a linear map O.")
    scale: Scale | None = option(
        None,
        help="What item vectors are multiplied by before positions are added; stated to the embedder as the "
        "fact `item_scale`, since only it stands before the positions.",
    )
    dropouts: list[Place] | None = option(
        None,
        help="Where dropout is: `input` (item plus position), `attention` (the weights), `attention-output` "
        "(what attention adds), `hidden` (after the activation), `output` (what the feed-forward net adds).",
    )
    initial: Initial | None = option(
        None, help="How linear maps are drawn: normal(0, std), or xavier by their own fans."
    )
    initial_qkv: InitialQkv | None = option(
        None,
        help="How Q, K and V are drawn; `packed`: by the fans of the one (3d, d) matrix that "
        "torch.nn.MultiheadAttention keeps.",
    )
    std: float = option(0.02, help="The deviation of `normal`.", validator=_above_zero)
    ffn_bias: FfnBias | None = option(
        None,
        help="Biases of the feed-forward net at the start: 0, or uniform(−1/√fan, 1/√fan), torch's own, "
        "which the PyTorch code leaves. All other biases start at 0.",
    )
    epsilon: float | None = option(None, help="Added to the variance in layer norms.", validator=_above_zero)

    @property
    def details(self) -> Details:
        """Every detail with its value: as set, or as in the preset."""
        chosen = {
            field.name: value
            for field in attrs.fields(Details)
            if (value := getattr(self, field.name)) is not None
        }
        if self.dropouts is not None:
            chosen["dropouts"] = tuple(self.dropouts)
        return attrs.evolve(PRESETS[self.preset], **chosen)

    def claims(self) -> EncoderClaims:
        """Causal as set; padding and neighbours change nothing."""
        return EncoderClaims(
            causal=self.causal, padding=BOTH_SIDES, batch_invariant=True, rows=True, terms=TERMS
        )

    def provides(self) -> Facts:
        """What positions and the embedder want to know."""
        return Facts(
            heads=self.heads,
            layers=self.layers,
            causal=self.causal,
            terms=TERMS,
            item_scale=self.details.scale,
        )

    def costs(self, facts: Facts, load: Load) -> Costs:
        """Maps and attention of every layer; see `recore_sasrec.counted`."""
        return counted(self, self.details, facts.width or 0, load)

    def problems(self, facts: Facts) -> list[str]:
        """Heads that do not divide the width, details that exclude each other."""
        found = []
        if facts.width is not None and facts.width % self.heads:
            found.append(f"{self.heads} heads do not divide a width of {facts.width}")
        details = self.details
        if details.norm == "post" and details.residual == "normalised":
            found.append(
                "`norm: post` normalises after the residual sum, so there is no normalised input to add "
                "(set `residual: input`)"
            )
        if len(set(details.dropouts)) < len(details.dropouts):
            found.append(f"`dropouts` names a place twice: {', '.join(details.dropouts)}")
        return found

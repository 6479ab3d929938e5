"""Options of the mistakes of encoders. Each wraps a sound encoder and commits its one mistake around it, so that a
recipe differs from the sound one in that part only; its claims are the sound encoder's. Free of torch.
"""

from __future__ import annotations

from typing import Any, Literal

import attrs
from attrs import frozen

from recore import EncoderClaims, Facts, Part, option
from recore.contracts.model import Encoder


def _not_negative(instance: object, attribute: Any, value: float) -> None:
    if not value >= 0:
        raise ValueError(f"`{attribute.name}`: expected a number of at least 0, got {value}")


def _at_least_two(instance: object, attribute: Any, value: int) -> None:
    if value < 2:
        raise ValueError(f"`{attribute.name}`: expected at least 2, got {value}")


@frozen
class Around:
    """A sound encoder, and what is to be said of it."""

    encoder: Part[Encoder] = option(help="The sound encoder around which the mistake is made.")

    def claims(self) -> EncoderClaims:
        """What the sound encoder claims, and this one does not keep."""
        claims = self.encoder.claims
        return claims if isinstance(claims, EncoderClaims) else EncoderClaims()

    def provides(self) -> Facts:
        """As the sound encoder does."""
        return self.encoder.provides()

    def columns(self) -> frozenset[str]:
        """Those of the sound encoder."""
        return self.encoder.columns()

    def problems(self, facts: Facts) -> list[str]:
        """None of its own: the sound encoder is asked beside it."""
        return []


def _needs_term(name: str, options: Around, term: str) -> list[str]:
    if term in options.claims().terms:
        return []
    return [
        f"pitfall {name!r} needs an encoder that takes the term {term!r}, and {options.encoder.name!r} does not"
    ]


def _needs_causal(name: str, options: Around) -> list[str]:
    """That the encoder can be built without its causal mask, in whose place the wrong one is put."""
    has = any(field.name == "causal" for field in attrs.fields(type(options.encoder.options)))
    claims = options.encoder.claims
    if has and isinstance(claims, EncoderClaims) and claims.causal:
        return []
    return [
        f"pitfall {name!r} puts a wrong mask in place of a causal one, which {options.encoder.name!r} has not as an "
        "option (use an encoder with `causal: true`, such as recore-sasrec:sasrec)"
    ]


@frozen
class PaddingAttended(Around):
    """Padding is not masked as a key: the batch is laid out as the rectangle that the batcher asks for, padding
    cells hold the zero vector, and every event attends to those before it. Zero is no mask: a key of zeros has a
    logit too (that of the key map's bias), so each cell of padding takes a share of the attention, and the shorter
    the history the more. Deeper layers attend to whatever the first made of padding.

    Only padding on the left is before any event. Where no rectangle is asked for the mistake has no occasion.

    Caught by encoder 4. Seen in: pmixer/SASRec.pytorch, issues 27 and 36, and its `model.py`, where
    `key_padding_mask` is commented out.
    """


@frozen
class PaddingTrained(Around):
    """The padding row is no zero row, and is attended to: as `padding-attended`, but padding cells hold one vector
    that is drawn at random and trains, as a pad row does that some initialisation wrote over, or a position vector
    number 0 that all padding shares.

    Caught by encoder 4. Seen in: pmixer/SASRec.pytorch, issue 24 (`xavier_normal_` over every parameter draws the
    pad row anew); datawhalechina/torch-rechub, pull request 176; pytorch/pytorch, issue 6411.
    """

    std: float = option(
        0.02, help="The padding vector is drawn from normal(0, std).", validator=_not_negative
    )


@frozen
class PaddingPositions(Around):
    """Positions are added to padding, which is attended to: as `padding-attended`, but the padding cell of column `c`
    holds the trained vector number `c` of a table of its own. (Codes that do this share the table with the
    events; here these keep the recipe's own position, so that nothing but the mistake is added.)

    Caught by encoder 4. Seen in: maxjcohen/transformer, issue 11; jadore801120/attention-is-all-you-need-pytorch,
    issue 134; MTSWebServices/RecTools, pull request 197 (the mask taken out of its positional encoding).
    kang205/SASRec's `model.py` sets padding to zero after its positions are added for this reason.
    """

    std: float = option(0.02, help="The vectors are drawn from normal(0, std).", validator=_not_negative)

    def problems(self, facts: Facts) -> list[str]:
        """One vector per column needs a bound."""
        unbounded = facts.history == "all"
        return (
            ["pitfall 'padding-positions' needs a bounded history (set model.history.last)"]
            if unbounded
            else []
        )


@frozen
class PaddingNan(Around):
    """Padding is masked with −∞ as a key, for rows of padding too: with padding on the left these see nothing, their
    softmax is 0/0, and not-a-number spreads from them through the next layer, or through the gradient: a later
    multiplication by 0 does not stop it. A run stops at its first step; so this one is for the kit only.

    Caught by encoder 4 and, as what it is, by encoder 6. Seen in: pytorch/pytorch, issues 24816 and 41508;
    pmixer/SASRec.pytorch leaves its padding mask out beside the causal one (`model.py`).
    """

    def problems(self, facts: Facts) -> list[str]:
        """Needs an encoder that takes a bias per key."""
        return _needs_term("padding-nan", self, "key-bias")


@frozen
class MaskInferred(Around):
    """What is padding is inferred from vectors: an event whose input vector sums to zero is masked as a key, though
    it is an event (an unknown item, say, which keeps its place with a zero vector). The published mask is
    `sign(abs(reduce_sum(keys, -1)))`. It works as long as padding is exactly zero and no event ever sums to it.

    Caught by encoder 11. Seen in: kang205/SASRec, issues 2 and 14 (`modules.py`); JiachengLi1995/TiSASRec, pull
    request 1; ZiyaoGeng/RecLearn, issue 19; Kyubyong/transformer, issue 63, from which it came.
    """

    def problems(self, facts: Facts) -> list[str]:
        """Needs an encoder that takes a bias per key."""
        return _needs_term("mask-inferred", self, "key-bias")


@frozen
class Masked(Around):
    """The causal mask is another one; the claim is that it is causal."""

    def claims(self) -> EncoderClaims:
        """Causal, it says."""
        return attrs.evolve(super().claims(), causal=True)


@frozen
class MaskNextVisible(Masked):
    """The causal mask is off by one: a row sees the event after it, too, which is the target that it is to predict.
    (`triu(diagonal=2)` for `triu(diagonal=1)`; or inputs that are not moved by one against their targets.) At
    prediction there is no next event, so what was learned does not work.

    Caught by encoder 2. Seen in: NVIDIA-Merlin/Transformers4Rec, issue 765 (the label stays among the inputs).
    """

    def problems(self, facts: Facts) -> list[str]:
        """Needs a causal encoder that can be built without its mask."""
        return _needs_causal("mask-next-visible", self) + _needs_term("mask-next-visible", self, "pair-table")


@frozen
class MaskTransposed(Masked):
    """The causal mask is transposed: a row sees itself and *later* events (`triu` where `tril` is meant, or a mask
    of what is hidden read as one of what is seen). In training the target is visible; at prediction the last row
    sees nothing but its own event.

    Caught by encoder 2. Seen in: harvard-edge/cs249r_book, pull request 1785; the confusion is asked about in
    pmixer/SASRec.pytorch, issue 6, and karpathy/nanoGPT, issue 170.
    """

    def problems(self, facts: Facts) -> list[str]:
        """Needs a causal encoder that can be built without its mask."""
        return _needs_causal("mask-transposed", self) + _needs_term("mask-transposed", self, "pair-table")


@frozen
class MaskMissing(Masked):
    """There is no causal mask: every row sees every event of its history, its target among them, in training; at
    prediction the last row sees what it should.

    Caught by encoder 2. Seen in: ZiyaoGeng/RecLearn, issue 81; liuqidong07/LLMEmb, issue 2 (`attn_mask` commented
    out in `models/SASRec.py`).
    """

    def problems(self, facts: Facts) -> list[str]:
        """Needs a causal encoder that can be built without its mask."""
        return _needs_causal("mask-missing", self)


@frozen
class NeighboursAttended(Around):
    """Attention runs along the batch: a rectangle `(B, W, d)` is given to attention that reads `(W, B, d)`
    (`nn.MultiheadAttention` without `batch_first` or a transposition), so that an event attends to the events of
    *other* histories in the same column, and never to its own history.

    Caught by encoder 5. Seen in: IBM/TabFormer, pull request 14; om-ai-lab/OmDet, issue 19.
    """


@frozen
class StateCarried(Around):
    """A state is carried from batch to batch in evaluation: the last state of the history in place `b` of a batch is
    added to the first input of the history in place `b` of the next one, whoever that is. In training it is
    reset, as it should be.

    Caught by encoder 8. Seen in: hungpthanh/GRU4REC-pytorch, issue 7; hidasib/GRU4Rec, issue 38 (both: evaluation
    does not reset hidden states); mquad/hgru4rec, issue 11, with what its repair changed.
    """


@frozen
class WidthMean(Around):
    """A mean over the padded length: to each input is added the mean of the inputs so far, but the sum is divided by
    the width of the rectangle, padding and all (the longest history of the batch, where no width is asked for).
    With `divide: events` it is divided by their number, which is sound: the twin to compare with.

    Caught by encoder 4, and by 3 and 5 where the width is the batch's. Seen in: alibaba/TorchEasyRec, pull request
    480 (attention divided by the longest of the batch); meta-recsys/generative-recommenders, issue 79;
    brightmart/text_classification, issue 40; mead-ml/mead-baseline, pull request 370.
    """

    divide: Literal["width", "events"] = option(
        "width", help="By what the sum is divided: the padded `width`, or the number of `events`."
    )


@frozen
class NormOverHistory(Around):
    """Layer norm over the wrong axes: inputs are normalised by mean and deviation of the *whole* rectangle row,
    later events and padding included, not of each vector by itself.

    Caught by encoder 2; by 3 and 4, too. Seen in: OpenNMT/OpenNMT-tf, pull request 6; patrick-kidger/equinox, pull
    request 471 (shapes are checked since, for this reason).
    """


@frozen
class HeadsByView(Around):
    """Heads are split by `view(B, H, W, d/H)` without a transposition: each head gets a stretch of the rectangle's
    numbers, so that what a head takes for one event is a piece of another, earlier or later, or of padding.

    Caught by encoder 2; by 3, 4 and 5, too. Seen in: reczoo/FuxiCTR, issue 30; 649453932/Chinese-Text-Classification-
    Pytorch, issue 10; meta-pytorch/opacus, pull request 825. Vectors are cut before the encoder and put together
    again after it, where those codes do so to queries, keys and values.
    """

    heads: int = option(2, help="Into how many pieces a vector is cut.", validator=_at_least_two)

    def problems(self, facts: Facts) -> list[str]:
        """The pieces are equal."""
        if facts.width is None or facts.width % self.heads == 0:
            return []
        return [f"pitfall 'heads-by-view': {self.heads} pieces do not divide a width of {facts.width}"]


@frozen
class DropoutInEvaluation(Around):
    """Dropout stays on in evaluation: `model.eval()` does not reach it (`F.dropout` without `training=`, or a
    dropout made anew in `forward`).

    Caught by encoder 8. Seen in: RUCAIBox/RecBole, pull request 1946; rixwew/pytorch-fm, issue 21;
    JianzhouZhan/Awesome-RecSystem-Models, issue 3.
    """

"""Options of the mistakes of learning and measuring. Each wraps a sound part and commits its one mistake around it, so
that a recipe differs from the sound one in that part only; what it claims is what the sound part claims, or what the
mistaken code believes of itself. Free of torch.
"""

from __future__ import annotations

from typing import Literal

from attrs import evolve, frozen

from recore import BatcherClaims, Claims, Facts, LossClaims, Part, SamplerClaims, option
from recore.contracts import Batcher, Evaluator, Loss, Objective, Sampler, Split, Tokenizer

# ---- objectives ------------------------------------------------------------------------------------------------


@frozen
class AroundObjective:
    """A sound objective."""

    objective: Part[Objective] = option(help="The sound objective around which the mistake is made.")

    def provides(self) -> Facts:
        """As the sound objective does."""
        return self.objective.provides()

    def columns(self) -> frozenset[str]:
        """Those of the sound objective."""
        return self.objective.columns()


@frozen
class PaddingPredicts(AroundObjective):
    """The loss is counted on padding: histories are padded on the right to the longest of the batch, and the rows of
    padding predict, too, as they do where a cross-entropy is given neither `ignore_index` nor a mask. What they
    predict is id 0, which padded targets hold; where items are numbered from 0 that is an item. A causal encoder
    keeps the padding out of every other state, so nothing but the loss is touched: one item is trained for as often
    as there is padding, mostly after short histories.

    Caught by objective 9. Seen in: RUCAIBox/RecBole, issue 1483 (DIEN's auxiliary loss); lucidrains/DALLE-pytorch,
    issue 57; lukas-blecher/LaTeX-OCR, issue 305 (padding is 0, `ignore_index` −100).
    """


@frozen
class PredictsItself(AroundObjective):
    """Targets are not shifted: each event predicts its own item, which it sees. The loss falls to almost nothing, and
    what was learned is to copy.

    Caught by objective 2. Seen in: KempnerInstitute/KempnerForge, pull request 155 ("collapsing the loss to a copy");
    macrocosm-os/pretraining, pull request 64 (`BartForCausalLM` does not shift); lucidrains/perceiver-ar-pytorch, pull
    request 10; asked about in songlab-cal/tape, issue 32.
    """


@frozen
class ShiftedTwice(AroundObjective):
    """Targets are shifted twice, by the data set and by the model: each event predicts the item after the next one.
    The query asks for the next one.

    Caught by objective 1. Seen in: InternLM/InternLM, issue 318; huggingface/transformers, pull request 44642 (labels
    that were shifted before are shifted again within the model).
    """


@frozen
class LastColumnAsked(AroundObjective):
    """The wrong row's state is read at prediction: queries are padded on the right to the longest of the batch, and
    the last *column* asks, which is padding for all but the longest history. Training is sound. What a query answers
    depends on which queries stand beside it.

    Caught by objective 10. Seen in: CarperAI/trlx, issue 341; asked about in kang205/SASRec, issue 10, where it is
    sound because padding stands on the left; Atcold/NYU-DLSP20, pull request 19, about the same confusion of sides.
    """


# ---- losses ----------------------------------------------------------------------------------------------------


@frozen
class AroundLoss:
    """A sound loss."""

    loss: Part[Loss] = option(help="The sound loss around which the mistake is made.")

    def claims(self) -> Claims:
        """What the sound loss claims, and this one does not keep."""
        return self.loss.claims

    def provides(self) -> Facts:
        """As the sound loss does."""
        return self.loss.provides()


@frozen
class PaddingClass(AroundLoss):
    """The row of padding is a class of the softmax: scores are taken with the whole table, row 0 for padding
    included, which is zero and stays so. Its score is 0 always, so that the other scores have something to be
    measured against: they are pushed down below 0 where nothing is known, and no longer only compared.

    Caught by loss 13. Seen in: RUCAIBox/RecBole, `recbole/model/sequential_recommender/sasrec.py` (cross-entropy over
    `item_embedding.weight`, of which row 0 is `padding_idx`); MTSWebServices/RecTools, pull request 187 (`n_items + 1`
    classes); THUDM/ComiRec, issue 29 (padding comes back as a recommendation). CCIIPLab/GCE-GNN, issue 4, takes the row
    away.
    """

    def problems(self, facts: Facts) -> list[str]:
        """Needs a loss over all items."""
        claims = self.loss.claims
        if isinstance(claims, LossClaims) and claims.negatives:
            return [
                f"pitfall 'padding-class' needs a loss over all items, and {self.loss.name!r} scores draws only"
            ]
        return []


@frozen
class MeanOfBatch(AroundLoss):
    """The loss is a mean over what is at hand, which is averaged again: every micro-batch (`trainer.accumulate`) and
    every rank weighs the same, however many predictions it holds. Without accumulation, on one process, the gradient
    of a step is the sound one.

    Caught by loss 5. Seen in: meta-pytorch/torchtune, pull request 1875; huggingface/transformers, pull request
    34191; ml-explore/mlx-lm, pull request 1413; OpenNMT/OpenNMT-py, issue 2209.
    """


@frozen
class LogQAdded(AroundLoss):
    """The logarithm of the sampling probability is *added* to scores instead of subtracted: items that are drawn
    often are punished twice instead of not at all.

    Caught by loss 10. Seen in: tensorflow/recommenders, issues 219 and 278.
    """

    def problems(self, facts: Facts) -> list[str]:
        """Needs a loss that corrects."""
        claims = self.loss.claims
        if not isinstance(claims, LossClaims) or claims.correction == "none":
            return [
                f"pitfall 'log-q-added' needs a loss that corrects by log_q, and {self.loss.name!r} does not"
            ]
        return []


# ---- samplers --------------------------------------------------------------------------------------------------


@frozen
class AroundSampler:
    """A sound sampler."""

    sampler: Part[Sampler] = option(help="The sound sampler around which the mistake is made.")

    def claims(self) -> Claims:
        """What the sound sampler claims, and this one does not keep."""
        return self.sampler.claims

    def provides(self) -> Facts:
        """As the sound sampler does."""
        return self.sampler.provides()

    def columns(self) -> frozenset[str]:
        """Those of the sound sampler."""
        return self.sampler.columns()


@frozen
class PaddingDrawn(AroundSampler):
    """Padding is drawn as a negative: draws run over one id more than there are items (`randint(0, n)` where 0 is
    padding), so that one draw in V + 1 is padding.

    - `form: zero`: what such a draw does to the loss where the vector of padding is zero. Its score is 0, whatever the
      state, and it teaches nothing; the draw is lost, and `log_q` does not know.
    - `form: id`: the id itself, V, a row past the last item. A loss that looks it up fails, or reads another row.

    Caught by sampler 1 (`id`) or 7 (`zero`). Seen in: maciejkula/spotlight, `spotlight/sampling.py`
    (`randint(0, num_items)`; in `spotlight/sequence` id 0 is padding); sberbank-ai-lab/RePlay, issue 99 (ids that no
    item has are drawn).
    """

    form: Literal["zero", "id"] = option("zero", help="How the draw of padding reaches the loss.")


@frozen
class OwnItemsDrawn(AroundSampler):
    """The user's own items are drawn as negatives, the target among them, though it is said that they are not: ids are
    drawn at random, and nobody looks whether the user has met them. Needs a sampler with `exclude: none`.

    Caught by sampler 3. Seen in: datawhalechina/torch-rechub, issue 51; maciejkula/spotlight, `spotlight/sampling.py`;
    massquantity/LibRecommender, pull request 427 (of all items consumed, some were not looked at).
    """

    def claims(self) -> SamplerClaims:
        """That no item of the history is drawn. Of `log_q` nothing is said."""
        return SamplerClaims("none", "history")

    def provides(self) -> Facts:
        """As is claimed."""
        return evolve(self.sampler.provides(), log_q="none", exclude="history")

    def problems(self, facts: Facts) -> list[str]:
        """Around a sampler that excludes there is no mistake."""
        claims = self.sampler.claims
        if isinstance(claims, SamplerClaims) and claims.exclude == "none":
            return []
        return [
            "pitfall 'own-items-drawn' needs a sampler that excludes nothing (set `exclude: none` on "
            f"{self.sampler.name!r})"
        ]


@frozen
class LogQOfOneDraw(AroundSampler):
    """`log_q` is the logarithm of the probability of *one* draw, not of the expected number among K. The difference,
    log K, cancels where all candidates are corrected alike, and does not where the target is left uncorrected, or
    where samplers are mixed.

    Caught by sampler 7. Seen in: tensorflow/recommenders, issue 635 (probability, expected count and truncated count
    in one formula).
    """

    def problems(self, facts: Facts) -> list[str]:
        """Needs a sampler that knows its probability."""
        claims = self.sampler.claims
        exact = isinstance(claims, SamplerClaims) and claims.log_q == "exact"
        if exact and hasattr(self.sampler.options, "count"):
            return []
        return [
            "pitfall 'log-q-of-one-draw' needs a sampler with an exact log_q and an option `count`, and "
            f"{self.sampler.name!r} is none"
        ]


# ---- what comes before and after -------------------------------------------------------------------------------


@frozen
class ValidationLeftOut:
    """The validation event is left out of the test's history: a test target is predicted from the training events of
    its user alone, one event too early, though the event in between is known by then.

    Caught by split 8. Seen in: jaywonchung/BERT4Rec-VAE-Pytorch, `dataloaders/bert.py` (`BertEvalDataset(self.train,
    answers, …)` for validation and test alike); yuangh-x/2022-NIPS-Tenrec, issue 24. kang205/SASRec, issue 21, and
    pmixer/SASRec.pytorch, issue 15, ask about the line that puts it in.
    """

    split: Part[Split] = option(help="The sound split around which the mistake is made.")


@frozen
class FirstItemIsPadding:
    """Items are numbered from 0, and 0 is padding: the first item has the token of padding. As an input it is a zero
    vector; as a target it is an item like any other.

    Caught by tokenizer 3. Seen in: jaywonchung/BERT4Rec-VAE-Pytorch, issues 3 and 17;
    rdevooght/sequence-based-recommendations, issue 18.
    """

    tokenizer: Part[Tokenizer] = option(help="The sound tokenizer around which the mistake is made.")


@frozen
class AroundBatcher:
    """A sound batcher."""

    batcher: Part[Batcher] = option(help="The sound batcher around which the mistake is made.")

    def claims(self) -> Claims:
        """What the sound batcher claims, and this one does not keep."""
        return self.batcher.claims

    def provides(self) -> Facts:
        """As the sound batcher does."""
        return self.batcher.provides()


@frozen
class LastBatchDropped(AroundBatcher):
    """The last batch of an epoch is dropped where it is smaller than the others, and nothing says so (`drop_last` as
    somebody else's default). Which histories are lost changes from epoch to epoch; where a batch holds most of the
    data they are many.

    Caught by batcher 1. Seen in: fastai/fastai, issue 1557; muzairkhattak/PromptSRC, issue 22 (2 of 10 classes were
    never trained on); zhouziyu02/SDformer, issue 4 (in a test set); RuidongZ/Deep_Matrix_Factorization_Models, issue 8.
    """


@frozen
class OrderKept(AroundBatcher):
    """The same batches in the same order in every epoch, though a new order was asked for: the seed never changes, or
    the switch does not arrive.

    Caught by batcher 6. Seen in: ant-research/EasyTemporalPointProcess, issue 54; deeppavlov/DeepPavlov, issue 13;
    huggingface/accelerate, issue 2157; NVIDIA-NeMo/RL, issue 239.
    """

    def claims(self) -> Claims:
        """A new order for each epoch."""
        claims = self.batcher.claims
        return evolve(claims, random=True) if isinstance(claims, BatcherClaims) else claims


@frozen
class AroundEvaluator:
    """A sound evaluator."""

    evaluator: Part[Evaluator] = option(help="The sound evaluator around which the mistake is made.")


@frozen
class TiesWon(AroundEvaluator):
    """Ties go the model's way: only items that score *more* than the target stand ahead of it (as where the target is
    the first of the candidates and sorting is stable). A model whose scores collapsed to one number is perfect.

    Caught by evaluator 9. Seen in: mlcommons/training_policies, issue 131 ("the model's hit rate would be 100% even
    though it didn't learn anything"); THUwangcy/ReChorus, issue 43; lyst/lightfm, pull request 149, which put it right.
    """


@frozen
class MeanOfBlocks(AroundEvaluator):
    """Metrics are averaged per batch of queries, and then over batches: the queries of the last, smaller one count
    more, and the figure changes with the batch size.

    Caught by evaluator 3. Seen in: siyongxu/GNUD, issue 3.
    """

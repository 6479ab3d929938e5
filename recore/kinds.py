"""The one list of kinds: hook, contract, module of checks. A new kind is a row here and a hook beside it."""

from __future__ import annotations

from attrs import frozen

from recore.contracts.data import Dataset, Split, Tokenizer, Transform
from recore.contracts.learning import Batcher, Loss, Objective, Sampler, Trainer
from recore.contracts.model import Embedder, Encoder, Position
from recore.contracts.scoring import Evaluator, Model


@frozen
class Kind:
    """`name` in recipes and commands, `hook` that yields its components, `contract` that a built part keeps,
    `checks` the module that tests it (empty: none yet)."""

    name: str
    hook: str
    contract: type
    checks: str = ""


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("dataset", "recore_datasets", Dataset),
        Kind("transform", "recore_transforms", Transform),
        Kind("split", "recore_splits", Split, "recore.testing.split"),
        Kind("tokenizer", "recore_tokenizers", Tokenizer, "recore.testing.tokenizer"),
        Kind("objective", "recore_objectives", Objective, "recore.testing.objective"),
        Kind("model", "recore_models", Model),
        Kind("embedder", "recore_embedders", Embedder, "recore.testing.embedder"),
        Kind("position", "recore_positions", Position, "recore.testing.position"),
        Kind("encoder", "recore_encoders", Encoder, "recore.testing.encoder"),
        Kind("batcher", "recore_batchers", Batcher, "recore.testing.batcher"),
        Kind("sampler", "recore_samplers", Sampler, "recore.testing.sampler"),
        Kind("loss", "recore_losses", Loss, "recore.testing.loss"),
        Kind("trainer", "recore_trainers", Trainer),
        Kind("evaluator", "recore_evaluators", Evaluator, "recore.testing.evaluator"),
    )
}
HEART = ("embedder", "position", "batcher", "sampler", "loss", "evaluator")


def kind_of(contract: object) -> Kind | None:
    """The kind whose contract this is, as in `Part[Sampler]`."""
    return next((kind for kind in KINDS.values() if kind.contract is contract), None)

"""What each built object can do, kind by kind. Protocols: a part need not inherit from anything.

Legend: `T` events in a batch, `B` sequences, `N` predictions, `K` negatives, `V` items, `d` width, `H` heads.
"""

from recore.contracts.data import (
    Changes,
    Dataset,
    Dropped,
    Holdout,
    RowMap,
    Special,
    Split,
    SplitParts,
    Tokenizer,
    Transform,
)
from recore.contracts.learning import (
    Batcher,
    Loss,
    LossValue,
    Negatives,
    Objective,
    Plan,
    Sampler,
    StepModel,
    StepReport,
    Trainer,
    Training,
    Verdict,
)
from recore.contracts.model import Embedder, Encoder, Placed, Position, Table
from recore.contracts.scoring import Block, Evaluation, Evaluator, Model, Queries, Query, Scorer, Wants

__all__ = [
    "Batcher",
    "Block",
    "Changes",
    "Dataset",
    "Dropped",
    "Embedder",
    "Encoder",
    "Evaluation",
    "Evaluator",
    "Holdout",
    "Loss",
    "LossValue",
    "Model",
    "Negatives",
    "Objective",
    "Placed",
    "Plan",
    "Position",
    "Queries",
    "Query",
    "RowMap",
    "Sampler",
    "Scorer",
    "Special",
    "Split",
    "SplitParts",
    "StepModel",
    "StepReport",
    "Table",
    "Tokenizer",
    "Trainer",
    "Training",
    "Transform",
    "Verdict",
    "Wants",
]

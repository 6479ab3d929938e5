"""A tiny sound implementation of each contract: the smallest thing that keeps every sentence.

They are the examples to read before writing a part, and what the kit builds a model from around the part that
it checks. No hook yields them: they are registered nowhere. `PARTS` has them by kind, as a recipe would.
"""

from __future__ import annotations

from typing import Any

from recore.component import Component, Part
from recore.testing.checks import part_of
from recore.testing.tiny import data, learning, model, scoring

_HERE = "recore.testing.tiny"


def _part(kind: str, name: str, options: type[Any], factory: str, summary: str) -> Part[Any]:
    return part_of(kind, Component(name, options, f"{_HERE}.{factory}", summary), "recore.testing")


PARTS: dict[str, list[Part[Any]]] = {
    "dataset": [_part("dataset", "log", data.Log, "data:dataset", "A small log.")],
    "split": [_part("split", "leave-last", data.LeaveLast, "data:split", "The last two events.")],
    "tokenizer": [_part("tokenizer", "items", data.Items, "data:tokenizer", "A token per item.")],
    "objective": [_part("objective", "next", learning.NextItem, "learning:objective", "The next item.")],
    "embedder": [_part("embedder", "lookup", model.Lookup, "model:embedder", "A vector per item.")],
    "position": [
        _part("position", "start", model.Start, "model:start", "A vector per place."),
        _part("position", "distance", model.Distance, "model:distance", "A number per distance."),
    ],
    "encoder": [_part("encoder", "blocks", model.Blocks, "model:encoder", "Causal attention.")],
    "batcher": [_part("batcher", "random", learning.Random, "learning:batcher", "In random order.")],
    "sampler": [_part("sampler", "uniform", learning.Uniform, "learning:sampler", "Uniform draws.")],
    "loss": [
        _part("loss", "softmax", learning.Softmax, "learning:softmax", "Over all items."),
        _part("loss", "sampled", learning.SampledSoftmax, "learning:sampled_softmax", "Over draws."),
        _part("loss", "binary", learning.Binary, "learning:binary", "Target against draws."),
    ],
    "trainer": [_part("trainer", "descent", learning.Descent, "learning:trainer", "Gradient descent.")],
    "evaluator": [_part("evaluator", "hits", scoring.Hits, "scoring:evaluator", "Hits and gains.")],
}

"""The gradient as one vector: its norm, clipping, and which parameters spoil it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


def gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """Those that exist: a parameter that took no part in the step has none."""
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def norm(grads: list[Tensor]) -> float:
    """The Euclidean norm of all entries together; 0 without any."""
    if not grads:
        return 0.0
    norms = torch.stack([torch.linalg.vector_norm(grad).float() for grad in grads])
    return float(torch.linalg.vector_norm(norms))


def clip(grads: list[Tensor], length: float, most: float) -> None:
    """Scale gradients of norm `length` down to norm `most`, in place; shorter ones stay untouched."""
    if length > most:
        for grad in grads:
            grad.mul_(most / length)


def spoiled(parameters: Mapping[str, nn.Parameter]) -> list[str]:
    """Names of the parameters whose gradient is not finite."""
    return [
        name
        for name, parameter in parameters.items()
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all())
    ]

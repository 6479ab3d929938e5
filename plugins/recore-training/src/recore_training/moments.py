"""The optimiser, and its state keyed by parameter name: tensors only, so that safetensors can hold it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from recore.errors import Problem, RunFolderError
from recore_training.options import Standard

Moments = dict[str, dict[str, Tensor]]


def make_optimiser(options: Standard, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
    """Adam or AdamW over the parameters, in their order."""
    # One pass over each tensor instead of a dozen: 0.3 against 0.8 ms for 300,000 parameters on one core,
    # in another order of rounding. Kernels exist for these two devices.
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters.values())
    kind = torch.optim.Adam if options.optimiser == "adam" else torch.optim.AdamW
    return kind(
        list(parameters.values()),
        lr=options.learning_rate,
        betas=options.betas,
        eps=options.eps,
        weight_decay=options.weight_decay,
        fused=True if fused else None,
    )


def moments_of(optimiser: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> Moments:
    """A copy of the state, by parameter name and quantity; empty for parameters that never had a gradient."""
    return {
        name: {key: value.detach().clone() for key, value in optimiser.state.get(parameter, {}).items()}
        for name, parameter in parameters.items()
    }


def put_moments(
    optimiser: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], moments: Moments
) -> None:
    """Give an optimiser, made over the same parameters, the state; it may take over the tensors.

    Raises RunFolderError, with every mismatch, when the state is of other parameters.
    """
    problems = [
        *(
            Problem(f"trainer 'standard': the checkpoint has no optimiser state of parameter {name!r}")
            for name in parameters
            if name not in moments
        ),
        *(
            Problem(f"trainer 'standard': the checkpoint has state of {name!r}, which is no parameter here")
            for name in moments
            if name not in parameters
        ),
        *(
            Problem(
                f"trainer 'standard': the state {key!r} of parameter {name!r} has shape "
                f"{tuple(value.shape)}, expected {tuple(parameters[name].shape)}"
            )
            for name, held in moments.items()
            if name in parameters
            for key, value in held.items()
            if value.dim() and value.shape != parameters[name].shape
        ),
    ]
    if problems:
        raise RunFolderError(problems)
    content = optimiser.state_dict()
    content["state"] = {
        number: dict(moments[name]) for number, name in enumerate(parameters) if moments[name]
    }
    optimiser.load_state_dict(content)

"""recore: a sequential recommender taken apart into named parts.

Importing this imports neither torch nor polars; `load` and `run` do when they are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recore.claims import (
    BOTH_SIDES,
    BatcherClaims,
    Claims,
    EncoderClaims,
    LossClaims,
    PositionClaims,
    SamplerClaims,
)
from recore.component import Component, Context, Facts, Part, option
from recore.costs import Costs, Load
from recore.errors import DataError, PluginError, Problem, RecipeError, RecoreError
from recore.hookspecs import hookimpl

if TYPE_CHECKING:
    from recore.api import Recipe, Result, load, open_run, run, update

__version__ = "0.1.0"
__all__ = [
    "BOTH_SIDES",
    "BatcherClaims",
    "Claims",
    "Component",
    "Context",
    "Costs",
    "DataError",
    "EncoderClaims",
    "Facts",
    "Load",
    "LossClaims",
    "Part",
    "PluginError",
    "PositionClaims",
    "Problem",
    "Recipe",
    "RecipeError",
    "RecoreError",
    "Result",
    "SamplerClaims",
    "hookimpl",
    "load",
    "open_run",
    "option",
    "run",
    "update",
]


def __getattr__(name: str) -> Any:
    if name in ("Recipe", "Result", "load", "open_run", "run", "update"):
        from recore import api

        return getattr(api, name)
    raise AttributeError(f"module 'recore' has no attribute {name!r}")

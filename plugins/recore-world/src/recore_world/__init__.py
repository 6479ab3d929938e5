"""recore-world: a simulated log whose truth is known. Importing this imports nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recore_world.options import WorldOptions

if TYPE_CHECKING:
    from recore_world.policies import Clairvoyant, Logged, Offer, Policy, Popular
    from recore_world.state import State
    from recore_world.truth import Oracle, Value
    from recore_world.world import World

_HOMES = {
    "Clairvoyant": "policies",
    "Logged": "policies",
    "Offer": "policies",
    "Oracle": "truth",
    "Policy": "policies",
    "Popular": "policies",
    "State": "state",
    "Value": "truth",
    "World": "world",
}
__all__ = [
    "Clairvoyant",
    "Logged",
    "Offer",
    "Oracle",
    "Policy",
    "Popular",
    "State",
    "Value",
    "World",
    "WorldOptions",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'recore_world' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"recore_world.{_HOMES[name]}"), name)

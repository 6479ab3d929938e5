"""The data set `world`."""

from __future__ import annotations

import numpy as np
import polars as pl
from attrs import frozen

from recore import Context
from recore.data import Interactions
from recore_world.options import WorldOptions
from recore_world.tables import Log
from recore_world.truth import Tally
from recore_world.world import BLOCK, World


@frozen
class WorldData:
    """A simulated log as Interactions."""

    options: WorldOptions

    def load(self, context: Context) -> Interactions:
        """The log with its tables. Whole seconds order events across users. The source names the latent oracle
        of each user's last event, an upper bound that no model that reads histories can be expected to reach.

        Raises DataError where options do not fit together.
        """
        world = World(self.options)
        everybody = np.arange(self.options.users)
        tally, parts = Tally(world, 10, "last"), []
        for start in range(0, len(everybody), BLOCK):
            log = Log(world, everybody[start : start + BLOCK])
            for step in world.walk(log.users):
                log.add(step)
                tally.add(step)
            parts.append(log.frame())
        bound = tally.oracle()
        replica = f", replica {self.options.replica}" if self.options.replica else ""
        return Interactions.from_frame(
            pl.concat(parts),
            items=world.items(),
            users=world.users(),
            order_across_users=True,
            source=f"simulated world, seed {self.options.seed}{replica}; {bound.name} of users' last events "
            f"{bound.expected:.4f}, an upper bound given tastes and slates",
        )


def build(options: WorldOptions, context: Context) -> WorldData:
    """The factory."""
    return WorldData(options)

"""The data set `world`."""

from __future__ import annotations

from attrs import frozen

from recore import Context
from recore.data import Interactions
from recore_world.options import WorldOptions
from recore_world.world import World


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
        bound = world.latent_oracle(10)
        replica = f", replica {self.options.replica}" if self.options.replica else ""
        return Interactions.from_frame(
            world.log(),
            items=world.items(),
            users=world.users(),
            order_across_users=True,
            source=f"simulated world, seed {self.options.seed}{replica}; {bound.name} of users' last events "
            f"{bound.expected:.4f}, an upper bound given tastes and slates",
        )


def build(options: WorldOptions, context: Context) -> WorldData:
    """The factory."""
    return WorldData(options)

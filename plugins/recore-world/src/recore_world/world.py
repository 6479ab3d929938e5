"""A world: the Python interface. It simulates anew whenever it is asked; nothing is kept but the catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from attrs import evolve

from recore import DataError, Facts, Problem
from recore_world import activity, exposure, items, simulate, tables, truth, write
from recore_world.choice import Choice
from recore_world.draws import Ints
from recore_world.exposure import Exposure
from recore_world.items import Catalogue
from recore_world.options import WorldOptions
from recore_world.policies import Policy
from recore_world.simulate import Step
from recore_world.truth import Oracle, Value

BLOCK = 16_384  # users simulated together: 20 slots each fill a few MiB per array


class World:
    """A simulated world. `counts (users,)` are the events of each user, `offsets (users + 1,)` their first
    event ids, both known before anything is simulated.

    Users are numbered from 0; user 17 is "u17" in the log, item 42 is "i42".
    """

    options: WorldOptions
    catalogue: Catalogue
    exposure: Exposure
    choice: Choice
    counts: Ints
    offsets: Ints

    def __init__(self, options: WorldOptions | None = None) -> None:
        """Raises DataError with all that does not fit together in the options."""
        self.options = options or WorldOptions()
        if found := self.options.problems(Facts()):
            raise DataError([Problem(message, path="world") for message in found])
        self.catalogue = items.make(self.options)
        self.exposure = exposure.make(self.options, self.catalogue)
        self.choice = Choice(self.options, self.catalogue)
        self.counts = activity.counts(self.options)
        self.offsets = np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)

    def __len__(self) -> int:
        """How many events the log has."""
        return int(self.offsets[-1])

    def replica(self, further: int) -> World:
        """The world with the same catalogue and other users' draws, `further` replicas on (0: this one)."""
        return World(evolve(self.options, replica=self.options.replica + further)) if further else self

    # ---- the log ------------------------------------------------------------------------------------------

    def walk(
        self, users: Sequence[int] | Ints | None = None, *, block: int = BLOCK, steps: int | None = None
    ) -> Iterator[Step]:
        """Everything that happens, event by event, with the truth beside it: for each block of users the steps
        in order. `users`: whom (default all); `steps`: only the first events of each."""
        chosen = self._users(users)
        for start in range(0, len(chosen), block):
            here = chosen[start : start + block]
            yield from simulate.walk(self.exposure, self.choice, here, self.counts[here], steps)

    def frames(
        self, users: Sequence[int] | Ints | None = None, *, block: int = BLOCK, steps: int | None = None
    ) -> Iterator[pl.DataFrame]:
        """The log in parts of whole users, `block` users each: `event`, `user`, `item`, `time`, `creator` and,
        unless withheld, `propensity`. The parts do not depend on `block` but in where they are cut."""
        chosen = self._users(users)
        for start in range(0, len(chosen), block):
            here = chosen[start : start + block]
            log = tables.Log(self, here, steps)
            for step in self.walk(here, block=block, steps=steps):
                log.add(step)
            yield log.frame()

    def log(
        self, users: Sequence[int] | Ints | None = None, *, block: int = BLOCK, steps: int | None = None
    ) -> pl.DataFrame:
        """The log, or that of some users, as one frame, grouped by user, in order within each."""
        return pl.concat(self.frames(users, block=block, steps=steps))

    def exposures(self, users: Sequence[int] | Ints | None = None, *, block: int = BLOCK) -> pl.DataFrame:
        """What was offered: a row for each slot of each event, `event`, `slot`, `item`, `propensity` (the
        probability q that a slot of this slate holds this item) and `chosen`."""
        return pl.concat(tables.exposures(self, step) for step in self.walk(users, block=block)).sort(
            "event", "slot"
        )

    def items(self) -> pl.DataFrame:
        """The table of items: `item`, `title`, `topic`, `creator`, `born` and `retired` (seconds since 1970;
        retired is null where it does not happen)."""
        return tables.items(self)

    def users(self) -> pl.DataFrame:
        """The table of users: `user`, and `made`, how many items they created."""
        return tables.users(self)

    def write(
        self, path: str | Path, format: Literal["csv", "parquet"] | None = None, *, block: int = BLOCK
    ) -> Path:
        """Write the log to one file, a block of users at a time, so that memory does not grow with the log.

        The format is that of the name's ending unless given. The file appears whole or not at all.
        Raises DataError for another format, and where the folder does not exist.
        """
        return write.write(self, Path(path), format, block)

    # ---- the truth ----------------------------------------------------------------------------------------

    def true_value(
        self,
        policy: Policy,
        *,
        users: Sequence[int] | Ints | None = None,
        draws: int = 8,
        replicas: int = 1,
        block: int = 512,
    ) -> Value:
        """The value of a policy: how likely a slot that it fills is the one that the user chooses; see
        `recore_world.truth`. `users`: averaged over whom (default all); `draws`: slates per event; `replicas`:
        over how many populations, this world's own and the next ones, for a smaller standard error."""
        return truth.true_value(self, policy, users, draws, replicas, block)

    def latent_oracle(
        self,
        k: int = 10,
        events: Literal["last", "all"] | npt.NDArray[np.int64] = "last",
        *,
        block: int = BLOCK,
    ) -> Oracle:
        """`ndcg@k[latent-oracle]` over the last event of each user, all events, or some event ids: what ranking
        the offered slate by its true utilities reaches; see `recore_world.truth`."""
        return truth.latent_oracle(self, k, events, block)

    def _users(self, users: Sequence[int] | Ints | None) -> Ints:
        if users is None:
            return np.arange(self.options.users)
        chosen = np.asarray(users, dtype=np.int64)
        if len(chosen) and not (chosen.min() >= 0 and chosen.max() < self.options.users):
            raise DataError(f"users: expected numbers from 0 to {self.options.users - 1}, got others")
        return chosen

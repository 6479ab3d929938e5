"""Uncertainty over users: bootstrap intervals, and the paired comparison of two runs.

Legend: `n` rows (a query and target each), `U` users, `D` different values.

The unit that is drawn is the user. A row whose user has others goes with them: the statistic is
Σ over users of their sum / Σ of their rows, the mean over rows of what was drawn.

Both methods depend on a sample only through its different values and how often each occurs: drawing n users
with replacement is drawing the numbers of each value from a multinomial, and flipping the signs of n
differences is drawing a binomial for each size. NDCG@10 has 11 values, so a million users take no longer than
a thousand; and the order of the users cannot matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
from attrs import frozen

from recore.errors import DataError, Problem

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

CELLS = 2_000_000  # numbers drawn together: bounds memory, not results
EXAMPLES = 5  # users named in an error


@frozen
class Paired:
    """Run a against run b on the same users. `difference`: mean of a − mean of b; `low`, `high`: its interval
    at `level`; `p`: two-sided, of the hypothesis that a and b are exchangeable within each user."""

    difference: float
    low: float
    high: float
    p: float
    users: int
    level: float = 0.95


def interval(
    values: npt.ArrayLike,
    seed: int,
    level: float = 0.95,
    draws: int = 2000,
    users: Sequence[object] | pl.Series | None = None,
) -> tuple[float, float]:
    """Bootstrap interval of the mean of `values (n,)` over users, by the percentile method (Efron &
    Tibshirani 1993, section 13.3): the (1 ± level) / 2 quantiles of the mean over `draws` resamples.

    `users (n,)` says which rows belong together; None: each row is a user. Percentile intervals of a mean
    are a little narrow below some 50 users.

    Raises DataError when there is no row, or a value is not finite; ValueError for a level or a number of
    draws that makes no sense.
    """
    _check_draws(level, draws)
    sums, rows = _by_user(_checked(values), users)
    rng = np.random.default_rng([seed, 0])
    return _percentiles(sums, rows, rng, level, draws)


def paired(
    a: pl.DataFrame,
    b: pl.DataFrame,
    metric: str,
    *,
    seed: int = 0,
    level: float = 0.95,
    draws: int = 2000,
    permutations: int = 10_000,
) -> Paired:
    """Compare `metric` of two runs, user by user. The frames are those of evaluators: `user`, the metric, a
    row per query and target, in any order.

    Rows are paired by `user`, and by `event` (the target) where both frames have it. The interval is that of
    `interval`, of the differences. p is the share of `permutations` random sign flips (all rows of a user
    flip together) whose mean difference is at least as large in absolute value, the observed one counted
    among them: (1 + #) / (1 + permutations), never 0 (Phipson & Smyth 2010).

    Raises DataError when the frames lack the metric, have other users or targets, or several rows that
    cannot be told apart.
    """
    _check_draws(level, draws)
    if permutations < 1:
        raise ValueError(f"expected at least 1 permutation, got {permutations}")
    difference, users = _differences(a, b, metric)
    sums, rows = _by_user(_checked(difference), users)
    low, high = _percentiles(sums, rows, np.random.default_rng([seed, 0]), level, draws)
    p = _sign_flips(sums, np.random.default_rng([seed, 1]), permutations)
    return Paired(float(np.sum(difference) / len(difference)), low, high, p, len(sums), level)


def _check_draws(level: float, draws: int) -> None:
    if not 0 < level < 1 or draws < 1:
        raise ValueError(f"expected a level between 0 and 1 and at least 1 draw, got {level} and {draws}")


def _checked(values: npt.ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"expected values (n,), got shape {array.shape}")
    if not len(array):
        raise DataError("there is no user to take an interval over")
    if wrong := int((~np.isfinite(array)).sum()):
        raise DataError(f"{wrong} of {len(array)} values are not finite numbers: no interval can be given")
    return array


def _by_user(values: Floats, users: Sequence[object] | pl.Series | None) -> tuple[Floats, Counts]:
    """Sum and number of rows of each user, `(U,)`."""
    if users is None:
        return values, np.ones(len(values), dtype=np.int64)
    column = users if isinstance(users, pl.Series) else pl.Series(users)
    if len(column) != len(values):
        raise ValueError(f"expected the users of {len(values)} rows, got {len(column)}")
    frame = pl.DataFrame({"user": column, "value": values}).group_by("user", maintain_order=True)
    # Sorted before they are summed: the order of the rows cannot show in the last digit.
    held = frame.agg(pl.col("value").sort().sum(), pl.len().cast(pl.Int64).alias("rows"))
    return held["value"].to_numpy(), held["rows"].to_numpy()


def _percentiles(
    sums: Floats, rows: Counts, rng: np.random.Generator, level: float, draws: int
) -> tuple[float, float]:
    kinds, often = np.unique(np.stack([sums, rows.astype(np.float64)]), axis=1, return_counts=True)
    share = often / len(sums)
    means = np.empty(draws)
    for start, stop in _chunks(draws, len(often)):
        drawn = rng.multinomial(len(sums), share, size=stop - start)
        means[start:stop] = (drawn @ kinds[0]) / (drawn @ kinds[1])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _sign_flips(sums: Floats, rng: np.random.Generator, permutations: int) -> float:
    sizes, often = np.unique(np.abs(sums), return_counts=True)
    observed = abs(float(np.sum(np.sort(sums))))
    # Sums that are equal in exact arithmetic count as equal.
    enough = observed - 1e-9 * float(sizes @ often)
    reached = 0
    for start, stop in _chunks(permutations, len(often)):
        positive = rng.binomial(often, 0.5, size=(stop - start, len(often)))
        reached += int((np.abs((2 * positive - often) @ sizes) >= enough).sum())
    return (1 + reached) / (1 + permutations)


def _chunks(total: int, width: int) -> Iterator[tuple[int, int]]:
    step = max(1, CELLS // max(width, 1))
    return ((start, min(start + step, total)) for start in range(0, total, step))


def _differences(a: pl.DataFrame, b: pl.DataFrame, metric: str) -> tuple[Floats, pl.Series]:
    """`a − b` by row `(n,)`, and the user of each, in the order of the keys."""
    problems = [
        Problem(f"the frame of run {name} has no column {wanted!r}; it has {', '.join(frame.columns)}")
        for name, frame in (("a", a), ("b", b))
        for wanted in ("user", metric)
        if wanted not in frame.columns
    ]
    if not problems and a["user"].dtype != b["user"].dtype:
        problems.append(Problem(f"users are {a['user'].dtype} in run a and {b['user'].dtype} in run b"))
    if problems:
        raise DataError(problems)
    keys = ["user", "event"] if "event" in a.columns and "event" in b.columns else ["user"]
    a, b = a.select(*keys, metric), b.select(*keys, metric)
    raise_if = [*_repeats("a", a, keys), *_repeats("b", b, keys)]
    raise_if += [*_lacking("b", a, b, keys), *_lacking("a", b, a, keys)]
    if raise_if:
        raise DataError(raise_if)
    both = a.join(b, on=keys, how="inner", suffix=" of b").sort(keys)
    return (both[metric] - both[f"{metric} of b"]).to_numpy(), both["user"]


def _repeats(name: str, frame: pl.DataFrame, keys: list[str]) -> list[Problem]:
    twice = frame.filter(pl.struct(keys).is_duplicated())
    if not len(twice):
        return []
    why = "several targets, and" if keys == ["user"] else "the same target twice:"
    return [
        Problem(
            f"{twice['user'].n_unique()} users of run {name} have {why} rows that cannot be told apart, "
            f"for example user {_examples(twice)}",
            hint="frames with a column `event` in both runs are paired by target" if len(keys) == 1 else "",
        )
    ]


def _lacking(name: str, held: pl.DataFrame, other: pl.DataFrame, keys: list[str]) -> list[Problem]:
    missing = held.join(other, on=keys, how="anti")
    if not len(missing):
        return []
    what = "users" if keys == ["user"] else "targets"
    return [
        Problem(
            f"run {name} lacks {len(missing)} of {len(held)} {what} of the other run, "
            f"for example of user {_examples(missing)}",
            hint="runs are compared over the same users only: same data, same split",
        )
    ]


def _examples(frame: pl.DataFrame) -> str:
    return ", ".join(repr(user) for user in frame["user"].unique(maintain_order=True).head(EXAMPLES))

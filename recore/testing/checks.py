"""Checks: numbered sentences of a contract in executable form, and how they are run.

A check is a plain function `check_…(part, case)`. It raises an AssertionError when the sentence does not
hold, and otherwise gives `Evidence`: what was measured, or that the sentence is not claimed. The sentence
stands in `docs/reference/contracts/<kind>.md` under the same number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

import torch
from attrs import evolve, frozen
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis.strategies import SearchStrategy

from recore.component import Component, Part
from recore.kinds import KINDS

if TYPE_CHECKING:
    from recore.testing.cases import Builder, Case

E = TypeVar("E")
Status = Literal["pass", "fail", "not claimed"]


@frozen
class Profile:
    """How hard to try: `examples` of each property, `draws` for what is counted, the `longest` history, and
    for how many seconds a failure is shrunk to a smaller example (0: not at all)."""

    name: str
    examples: int
    draws: int
    longest: int = 6
    shrink: float = 2.0


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile("quick", examples=20, draws=2_000, longest=6),
        Profile("default", examples=100, draws=10_000, longest=12, shrink=20),
        Profile("thorough", examples=500, draws=100_000, longest=24, shrink=120),
    )
}


@frozen
class Evidence:
    """What a check found where nothing is broken: `measured` in words; `claimed` False where the part does
    not claim the sentence, so that nothing was required."""

    measured: str = ""
    claimed: bool = True


class Broken(AssertionError):
    """A sentence does not hold; the text is the evidence."""


def broken(evidence: str) -> NoReturn:
    """Say how a sentence was seen not to hold."""
    raise Broken(evidence)


def require(holds: bool, evidence: str) -> None:
    """Unlike `assert`, stays under `python -O`."""
    if not holds:
        raise Broken(evidence)


@frozen
class Check:
    """A sentence of a contract and the function that tests it."""

    kind: str
    number: int
    sentence: str
    function: Callable[[Part[Any], Case], Evidence]

    @property
    def name(self) -> str:
        """As in `encoder 3`."""
        return f"{self.kind} {self.number}"

    def __call__(self, part: Part[Any], case: Case) -> Evidence:
        """Raises AssertionError with the sentence and the evidence. Runs on one thread: tensors are tiny, and
        figures must not depend on how many cores there are."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self.function(part, case)
        except Broken as found:
            raise Broken(f"{self.name}: {self.sentence} But {found}; `{part.name}`.") from None
        finally:
            torch.set_num_threads(threads)


CHECKS: dict[str, list[Check]] = {}


def states(
    kind: str, number: int, sentence: str
) -> Callable[[Callable[[Part[Any], Case], Evidence]], Callable[[Part[Any], Case], Evidence]]:
    """Register a function as the executable form of sentence `number` of a kind's contract."""

    def register(function: Callable[[Part[Any], Case], Evidence]) -> Callable[[Part[Any], Case], Evidence]:
        check = Check(kind, number, sentence, function)
        known = CHECKS.setdefault(kind, [])
        if any(other.number == number for other in known):
            raise ValueError(f"{check.name} is stated twice")
        known.append(check)
        known.sort(key=lambda entry: entry.number)

        def checked(part: Part[Any], case: Case) -> Evidence:
            return check(part, case)

        checked.__name__, checked.__doc__ = function.__name__, f"{check.name}: {sentence}"
        checked.__module__ = function.__module__
        return checked

    return register


def load_checks() -> dict[str, list[Check]]:
    """All checks of all kinds, by kind."""
    for kind in KINDS.values():
        if kind.checks:
            import_module(kind.checks)
    return CHECKS


def counts() -> dict[str, int]:
    """How many checks each kind has."""
    return {kind: len(found) for kind, found in load_checks().items()}


@frozen
class CheckResult:
    """One check of one part. `measured` is the evidence, and for a failure the whole message."""

    part: str
    name: str
    sentence: str
    status: Status
    measured: str
    seconds: float


def run_checks(
    part: Part[Any],
    case: Case | None = None,
    profile: str | Profile = "quick",
    builder: Builder | None = None,
) -> list[CheckResult]:
    """Run every check of the part's kind.

    Args:
        part: a component with its options; `part_of` makes one from a component.
        case: the synthetic context; made for the part where None. Its own profile gives way to `profile`.
        profile: `quick`, `default`, `thorough`, or one of your own.
        builder: how parts are built, where they are not simply imported (`make_builder`, for loose files).

    Raises ValueError for a kind without checks, and for a part that no case of the kit suits.
    """
    from recore.testing.cases import case_for

    chosen = PROFILES[profile] if isinstance(profile, str) else profile
    case = case_for(part, chosen, builder=builder) if case is None else evolve(case, profile=chosen)
    checks = load_checks().get(part.kind)
    if not checks:
        raise ValueError(f"{part.name}: there are no checks of kind {part.kind!r}; there are {counts()}")
    return [_result(check, part, case) for check in checks]


def _result(check: Check, part: Part[Any], case: Case) -> CheckResult:
    begun = time.perf_counter()
    try:
        evidence = check(part, case)
        status: Status = "pass" if evidence.claimed else "not claimed"
        measured = evidence.measured
    except Broken as found:
        status, measured = "fail", str(found)
    except Exception as error:  # a crash is reported under the sentence that it kept from being tested
        status = "fail"
        measured = f"{check.name}: {check.sentence} But it crashed: {type(error).__name__}: {error}"
    return CheckResult(part.name, check.name, check.sentence, status, measured, time.perf_counter() - begun)


def part_of(kind: str, component: Component, provider: str = "this", options: Any = None) -> Part[Any]:
    """A component with its default options, or the given ones, as a recipe would choose it.

    Raises ValueError when an option has no default and none are given.
    """
    if options is None:
        try:
            options = component.options()
        except TypeError as error:
            raise ValueError(
                f"{provider}:{component.name} has options without a default ({error}); give `options`"
            ) from error
    return Part(kind, component, provider, options, path=kind)


def for_all(case: Case, strategy: SearchStrategy[E], holds: Callable[[E], None]) -> None:
    """Let hypothesis look for an example on which `holds` raises. The same seed tries the same examples;
    nothing is written anywhere.

    Hypothesis sets no bound on shrinking but five minutes, so it is ended from here: what was found last is
    raised then, the smallest or nearly so.
    """
    phases = [Phase.generate, *([Phase.shrink] if case.profile.shrink else [])]

    @settings(
        max_examples=case.profile.examples,
        deadline=None,
        database=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
    )
    @seed(case.seed)
    @given(strategy)
    def property_holds(example: E) -> None:
        try:
            holds(example)
        except Broken as found:
            if begun and time.perf_counter() - begun[0] > case.profile.shrink:
                raise _Enough(found) from None
            begun.append(time.perf_counter())
            raise

    begun: list[float] = []
    try:
        property_holds()
    except _Enough as enough:
        raise enough.found from None


class _Enough(BaseException):
    """Ends shrinking: no Exception, so that hypothesis lets it pass, as it does a KeyboardInterrupt."""

    def __init__(self, found: Broken) -> None:
        super().__init__(str(found))
        self.found = found


def failures(results: Iterable[CheckResult]) -> list[CheckResult]:
    """The results that failed."""
    return [result for result in results if result.status == "fail"]

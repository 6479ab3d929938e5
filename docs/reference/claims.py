"""Render the claims table from the components and the kit's measurements: `python docs/reference/claims.py` writes
`claims.md` beside this file, `--check` only compares.

In the page, `<!-- claims KIND -->…<!-- end -->` is the table of the shipped parts of a kind, and
`<!-- pitfalls -->…<!-- end -->` that of recore-pitfalls. States are measured as the kit's checks do, in float64 on one
fixed batch (histories of 5, 1 and 7 events), so that the page is the same on any machine.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, frozen

from recore.claims import BatcherClaims, EncoderClaims, LossClaims, PositionClaims, SamplerClaims, Side
from recore.component import Part
from recore.errors import RecoreError
from recore.plugins import Found, discover
from recore.ragged import View
from recore.recipe.options import options_of, part_kind
from recore.testing import Case, Profile, case_for, load_checks, part_of, run_checks
from recore.testing import encoder as encoders
from recore.testing import position as positions
from recore.testing.sequences import (
    EXACT,
    Stack,
    after_cutting,
    after_neighbours,
    after_padding,
    after_replacing,
    base_layout,
    relative,
    replaced_view,
)
from recore.testing.tiny import PARTS

PAGE = Path(__file__).resolve().with_name("claims.md")
PITFALLS = "recore-pitfalls"
SIDES: tuple[Side, ...] = ("left", "right")
LIGHT = Profile("table", examples=3, draws=2_000, longest=5, shrink=0)
# Options under which a part claims something else, or works in another way, than by default.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "recore-positions:relative-keys-values": [{"tied": True}],
    "recore-positions:relative-bias": [{"buckets": "logarithmic"}],
    "recore-positions:time-bias": [{"query_time": "target"}],
    "recore-positions:time-features": [{"query_time": "target"}],
    "recore-positions:known-item": [{"evidence": "rank"}, {"evidence": "agreement"}],
    "recore-sasrec:sasrec": [
        {"preset": "paper"},
        {"preset": "tensorflow"},
        {"preset": "pytorch"},
        {"causal": False},
    ],
    "recore-embeddings:padding-safe": [{"bias": True}],
    "recore-batchers:ragged": [{"order": "like-length"}],
    "recore-batchers:padded": [{"side": "right"}],
    "recore-batchers:by-length": [{"prefixes": 4}],
    "recore-samplers:uniform": [{"exclude": "target"}, {"exclude": "none"}],
}


@frozen
class Said:
    """A claim beside what was measured: a largest change, `inf` where nothing finite came out, or None."""

    claimed: bool
    far: float | None

    @property
    def broken(self) -> bool:
        """Claimed, and not so."""
        return self.claimed and self.far is not None and self.far > EXACT

    def __str__(self) -> str:
        measured = "refused" if self.far is None else rounded(self.far)
        text = f"{'yes' if self.claimed else 'no'}, {measured}"
        return f"**{text}**" if self.broken else text


def rounded(far: float) -> str:
    """To the nearest power of ten; 0 within the kit's bound."""
    if far <= EXACT:
        return "0"
    return "not finite" if not math.isfinite(far) else f"1e{round(math.log10(far)):+d}"


# ---- what is measured ----------------------------------------------------------------------------------------


def worst(stacks: list[Stack], far: Callable[[Stack], float]) -> float | None:
    """The largest over the stacks; None where the part refuses what it is given."""
    try:
        return max(far(stack) for stack in stacks)
    except (ValueError, RecoreError):
        return None


def under_padding(case: Case, stack: Stack, view: View, side: Side) -> float:
    """How far states and gradients move in rectangles of several widths and fills."""
    return after_padding(stack, view, side, base_layout(stack, case.facts), gradients=True)[0].far


def position(part: Part[Any], case: Case) -> dict[str, Said | str]:
    """A row of the table of positions, and of pitfalls among them."""
    claims = part.claims if isinstance(part.claims, PositionClaims) else PositionClaims()
    layers = range(case.facts.layers or 1)
    whole = [positions._stack(part, case)]
    each = [positions._stack(part, case, layer=layer) for layer in layers]
    tried = claims.padding if claims.shift_invariant or claims.prefix_consistent else frozenset(SIDES)

    def laid(stack: Stack, far: Callable[[Stack, View], Any]) -> float:
        view = replaced_view(case)
        return max(
            float(far(stack, view.laid_out(layout)).far) for layout in positions._layouts(stack, case, tried)
        )

    def view_of(stack: Stack) -> View:
        return replaced_view(case).laid_out(base_layout(stack, case.facts))

    return {
        "counted from": claims.relative_to,
        **padding(case, whole, claims.padding),
        "another future item": Said(True, worst(whole, lambda s: after_replacing(s, view_of(s)).far)),
        "no later events": Said(claims.prefix_consistent, worst(whole, lambda s: laid(s, after_cutting))),
        "another neighbour": Said(True, worst(whole, lambda s: after_neighbours(s, view_of(s)).far)),
        "a later start": Said(
            claims.shift_invariant, worst(each, lambda s: laid(s, positions._after_dropping))
        ),
        "reads times": times(claims.query_time, whole[0], case),
    }


def times(said: str, stack: Stack, case: Case) -> str:
    """Which times are read by claim, and how far states move with those of the log and that of the target."""
    view = positions._timed(replaced_view(case), case, "times").laid_out(base_layout(stack, case.facts))
    asked = view["time"] + 3600
    try:
        plain = positions._asked(stack, view, asked)
        log = relative(plain, positions._asked(stack, positions._timed(view, case, "other times"), asked))
        target = relative(plain, positions._asked(stack, view, asked + 77_777))
    except (ValueError, RecoreError):
        return f"{said}, refused"
    text = f"{said}, log {rounded(log)}, target {rounded(target)}"
    broken = (said == "none" and log > EXACT) or (said != "target" and target > EXACT)
    return f"**{text}**" if broken else text


def encoder(part: Part[Any], case: Case) -> dict[str, Said | str]:
    """A row of the table of encoders, and of pitfalls among them."""
    claims = part.claims if isinstance(part.claims, EncoderClaims) else EncoderClaims()
    stacks = [encoders._stack(part, case)]

    def view_of(stack: Stack) -> View:
        return replaced_view(case).laid_out(base_layout(stack, case.facts))

    return {
        **padding(case, stacks, claims.padding),
        "another future item": Said(
            claims.causal, worst(stacks, lambda s: after_replacing(s, view_of(s)).far)
        ),
        "no later events": Said(claims.causal, worst(stacks, lambda s: after_cutting(s, view_of(s)).far)),
        "another neighbour": Said(
            claims.batch_invariant, worst(stacks, lambda s: after_neighbours(s, view_of(s)).far)
        ),
        "takes": ", ".join(sorted(claims.terms)) or "inputs only",
    }


def padding(case: Case, stacks: list[Stack], claimed: frozenset[Side]) -> dict[str, Said | str]:
    """The two columns of padding."""
    view = replaced_view(case)
    return {
        f"padding {side}": Said(
            side in claimed,
            worst(stacks, lambda stack, side=side: under_padding(case, stack, view, side)),  # type: ignore[misc]  # bound in the loop
        )
        for side in SIDES
    }


def kept(part: Part[Any], case: Case) -> dict[str, Said | str]:
    """How many sentences of the contract hold, for kinds whose parts make no states."""
    results = run_checks(part, case, LIGHT)
    passed = sum(result.status == "pass" for result in results)
    said = sum(result.status != "not claimed" for result in results)
    silent = len(results) - said
    text = f"{passed} of {said}" + (f" ({silent} not claimed)" if silent else "")
    return {"claims": in_words(part.claims), "sentences kept": text if passed == said else f"**{text}**"}


def in_words(claims: Any) -> str:
    """What parts of these kinds claim."""
    if isinstance(claims, BatcherClaims):
        each = {
            "once": "each history once",
            "target": "each event with one before it a target once",
            "drawn": "targets drawn with known probability",
        }[claims.each]
        return f"{each}; {'order drawn anew' if claims.random else 'fixed order'}"
    if isinstance(claims, SamplerClaims):
        never = {"none": "nothing", "target": "the target", "history": "the user's history"}[claims.exclude]
        return f"`log_q` {claims.log_q}; {never} excluded"
    if isinstance(claims, LossClaims):
        need = "needs negatives" if claims.negatives else "needs no negatives"
        more = ("; compares views" if claims.agreement else "") + (
            "; only differences of scores count" if claims.shift_invariant else ""
        )
        return f"memory {claims.memory}; {need}; correction {claims.correction}{more}"
    return "special rows exactly zero"


MEASURE: dict[str, Callable[[Part[Any], Case], dict[str, Said | str]]] = {
    "position": position,
    "encoder": encoder,
    "embedder": kept,
    "batcher": kept,
    "sampler": kept,
    "loss": kept,
}


KINDS = ("split", "tokenizer", "objective", *MEASURE, "evaluator")  # of which there are checks


# ---- which parts ---------------------------------------------------------------------------------------------


def parts(kind: str, pitfalls: bool = False) -> Iterator[tuple[str, Part[Any]]]:
    """The shipped parts of a kind with their variants, each by its name in the table."""
    for found in discover().of(kind):
        if not found.provider.startswith("recore") or (found.provider == PITFALLS) != pitfalls:
            continue
        for changes in [{}, *VARIANTS.get(found.name, [])]:
            yield label(found, changes), part(found, changes)


def label(found: Found, changes: dict[str, Any]) -> str:
    """`alibi`, or `time-bias`, query_time target."""
    said = "".join(
        f", {key}" if value is True else f", not {key}" if value is False else f", {key} {value}"
        for key, value in changes.items()
    )
    return f"`{found.component.name}`{said}"


def part(found: Found, changes: dict[str, Any]) -> Part[Any]:
    """With the width of the kit's case where one is needed, and where a part stands inside it the first that suits: of
    those that are shipped and make states, then of the kit's own, then of the others that are shipped."""
    options = {option.key: option for option in options_of(found.component.options)}
    needed: dict[str, Any] = {"width": 8} if "width" in options and options["width"].required else {}
    inside = [(key, kind) for key, one in options.items() if one.required and (kind := part_kind(one.type))]

    def made(**more: Any) -> Part[Any]:
        said = found.component.options(**needed, **changes, **more)
        return part_of(found.kind, found.component, found.provider, said)

    for key, kind in inside:
        shipped = [one for _, one in parts(kind.name)]
        states = shipped if kind.name in ("position", "encoder", "embedder") else []
        for inner in (*states, *PARTS.get(kind.name, ()), *shipped):
            if suits(outer := made(**{key: inner})):
                return outer
    return made()


def suits(made: Part[Any]) -> bool:
    """Whether the kit has a case for it."""
    try:
        case_for(made)
    except ValueError:
        return False
    return True


def measured(kind: str, made: Part[Any]) -> dict[str, Said | str]:
    """What stands beside a part's name."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return MEASURE[kind](made, evolve(case_for(made), profile=LIGHT))
    finally:
        torch.set_num_threads(threads)


# ---- the page ------------------------------------------------------------------------------------------------


def table(kind: str) -> str:
    """The shipped parts of a kind."""
    rows = [{"part": name, **measured(kind, made)} for name, made in parts(kind)]
    return markdown(rows)


def pitfalls() -> str:
    """The parts of recore-pitfalls: what is claimed and measured of those that make states, and of all the first
    sentence of the kit that each breaks."""
    made = {kind: list(parts(kind, pitfalls=True)) for kind in KINDS}
    if not any(made.values()):
        return "(recore-pitfalls is not installed.)\n"
    text = []
    for kind in ("position", "encoder"):
        rows = [{kind: name, **measured(kind, one)} for name, one in made[kind]]
        text.append(markdown(rows) if rows else "")
    rows = [
        {"part": name, "mistake": mistake(one), "caught by": caught(one)}
        for kind, held in made.items()
        for name, one in held
    ]
    return "\n".join([*filter(None, text), markdown(rows)])


def mistake(part: Part[Any]) -> str:
    """Its summary, without the word that stands before all of them."""
    return part.component.summary.removeprefix("Mistake: ").rstrip(".")


def caught(part: Part[Any]) -> str:
    """The first sentence of the kit, of those that its documentation names, that the kit finds broken: `encoder 4`."""
    text = re.search(r"Caught by (.*?)(Seen in|$)", part.component.options.__doc__ or "", re.DOTALL)
    numbers = [int(number) for number in re.findall(r"\b\d+\b", text[1])] if text else []
    case = evolve(case_for(part), profile=evolve(LIGHT, examples=12, longest=6))
    checks = {check.number: check for check in load_checks()[part.kind]}
    for number in numbers:
        try:
            checks[number](part, case)
        except AssertionError:
            return checks[number].name
    return f"**not by {part.kind} {', '.join(map(str, numbers))}**"


def markdown(rows: list[dict[str, Any]]) -> str:
    """A Markdown table; columns are those of the first row."""
    lines = [f"| {' | '.join(rows[0])} |", f"|{'|'.join(' --- ' for _ in rows[0])}|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row.values()))} |" for row in rows)]) + "\n"


TABLE = re.compile(r"<!-- (claims (?P<kind>\w+)|pitfalls) -->\n(?P<body>.*?)<!-- end -->", re.DOTALL)


def render(page: str) -> str:
    """The page with every table made anew."""

    def filled(match: re.Match[str]) -> str:
        body = table(match["kind"]) if match["kind"] else pitfalls()
        return f"<!-- {match[1]} -->\n{body}<!-- end -->"

    return TABLE.sub(filled, page)


def main(arguments: list[str]) -> int:
    """Write the page, or say that it is out of date."""
    parser = argparse.ArgumentParser(description="Render the claims table.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail when it is out of date")
    check: bool = parser.parse_args(arguments).check
    before = PAGE.read_text(encoding="utf-8")
    after = render(before)
    if before == after:
        return 0
    print("out of date: claims.md" if check else "rendered: claims.md")
    if not check:
        PAGE.write_text(after, encoding="utf-8")
    return 1 if check else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

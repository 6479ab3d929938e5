"""The recipe as text: sections in the order of the flow of data, every choice with its reason above it."""

from __future__ import annotations

import json
import re
import textwrap
from typing import Any, Final

from recore.newrecipe.choose import Choice, Choices
from recore.newrecipe.columns import Roles
from recore.newrecipe.findings import CORE, Findings, data_tree
from recore.newrecipe.look import Look
from recore.newrecipe.parts import PARTS

WIDE: Final = 108
PLAIN: Final = re.compile(r"[A-Za-z_][\w./+-]*|\d+|\d+\.\d+")
WORDS: Final = {"true", "false", "null", "yes", "no", "on", "off", "nan", "inf"}


def recipe_text(
    name: str, look: Look, roles: Roles, found: Findings, chosen: Choices, path: str, seen_rows: str
) -> str:
    """The whole file."""
    head = [
        f"# {name}: written by `recore new-recipe {look.path.name}` from what the file holds:",
        *_comment(seen_rows),
        "# Guesses are marked as such. Change what you know better; `recore check` tells whether it still fits.",
        "recore: 1",
    ]
    sections = [
        "\n".join(head),
        _data(look, roles, found, chosen, path),
        _transforms(found),
        "# Each user's last event is the test, the one before it chooses the epoch, all others train.\n"
        + "\n".join(
            _comment(
                f"{found.tested:,} users are tested; {found.short:,} have fewer than 3 events and only train; "
                f"{found.cold_targets:,} test targets are items that training lacks, which rank last."
            )
        )
        + f"\nsplit: {{use: {PARTS['split']}}}",
        f"tokenizer: {{use: {PARTS['tokenizer']}}}\nobjective: {{use: {PARTS['objective']}}}",
        _model(chosen),
        _learning(chosen),
        _evaluation(chosen),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def scalar(value: Any) -> str:
    """A value as YAML has it, quoted where it would be read as anything else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(scalar(entry) for entry in value) + "]"
    if isinstance(value, str):
        if PLAIN.fullmatch(value) and value.lower() not in WORDS and not value[0].isdigit():
            return value
        return json.dumps(value, ensure_ascii=False)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _comment(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, WIDE, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _why(choice: Choice, key: str, indent: str = "  ") -> list[str]:
    return _comment(f"{key}: {choice.why}.", indent)


def _data(look: Look, roles: Roles, found: Findings, chosen: Choices, path: str) -> str:
    tree = data_tree(look, roles, path)
    if chosen.ties is not None and tree["use"] == PARTS["events"]:
        tree["ties"] = chosen.ties.value
    if chosen.across is not None:
        tree["order_across_users"] = chosen.across.value
    notes = [f"{role}: {name!r}, {why}." for role, name, why in roles_told(roles)]
    if roles.moments is not None:
        notes.append(f"times are {roles.moments.in_words()}.")
        if roles.moments.unit in ("ms", "us", "ns"):
            notes.append("They are kept in that unit: `since` and parts that read times count in it.")
        if roles.moments.unit == "own" and chosen.across is None:
            notes.append(
                "Taken as one clock for all users; where each user has their own, set order_across_users: false."
            )
    elif found.times is False:
        notes.append(
            "no times: the order of the file is the order of events, and across users it is unknown."
        )
    if chosen.ties is not None:
        notes.append(f"ties: {chosen.ties.why}.")
    if chosen.across is not None:
        notes.append(f"order_across_users: {chosen.across.why}.")
    notes += [f"{note[0].upper()}{note[1:]}." for note in roles.notes]
    lines = ["data:", *[line for note in notes for line in _comment(note, "  ")]]
    lines += [f"  {key}: {value if key == 'use' else scalar(value)}" for key, value in tree.items()]
    if roles.rating is not None and found.ratings is not None:
        lines += _comment("With titles, recommendations print them:", "  ")
    else:
        lines += _comment("With a table of items, recommendations print titles:", "  ")
    lines.append("  # items: {path: items.csv, id: item, title: title}")
    return "\n".join(lines)


def roles_told(roles: Roles) -> list[tuple[str, str, str]]:
    """Role, column and why, of each that was found."""
    found = (("user", roles.user), ("item", roles.item), ("time", roles.time), ("rating", roles.rating))
    return [(role, name, roles.why[role]) for role, name in found if name is not None]  # type: ignore[index]


def _transforms(found: Findings) -> str:
    """All of them commented out: the log is taken as it is, and what else could be done stands ready."""
    told: list[str] = []
    entries: list[str] = []
    ratings = found.ratings
    if ratings is not None and ratings.values > 2:
        told.append(
            f"Ratings from {ratings.low:g} to {ratings.top:g} are explicit: a low one says that the user met the item, "
            f"not that they liked it. Every event counts here; the first line would keep the {ratings.share:.0%} "
            f"of at least {ratings.high:g}."
        )
        entries.append(f"{{use: {PARTS['rating-at-least']}, least: {ratings.high:g}}}")
    if found.runs:
        told.append(
            f"{found.runs:,} events repeat the item directly before them (of all events {found.repeats:.0%} are of an "
            f"item that their user had before; {found.equal:,} events equal another in all that is read). They are "
            "kept: where they say nothing, collapse-repeats keeps the first of each run."
        )
        entries.append(f"{{use: {PARTS['collapse-repeats']}}}")
    if found.rare_items or found.rare_users:
        told.append(
            f"{found.rare_users:,} of {found.users:,} users and {found.rare_items:,} of {found.items:,} items have "
            f"fewer than {CORE} events, from which little can be learned. They are kept; published figures are often "
            "without them (k-core), which makes the task easier."
        )
        if found.lengths[50] < 3:
            told.append("Histories are very short here, so consider it.")
        entries.append(f"{{use: {PARTS['k-core']}, users: {CORE}, items: {CORE}}}")
    if not entries:
        return ""
    lines = [line for text in told for line in _comment(text)]
    return "\n".join([*lines, "# transforms:", *[f"#   - {entry}" for entry in entries]])


def _model(chosen: Choices) -> str:
    lines = [
        "model:",
        *_why(chosen.history, "history"),
        f"  history: {{last: {chosen.history.value}}}",
        *_why(chosen.width, "width"),
        f"  embedder: {{use: {PARTS['embedder']}, width: {chosen.width.value}}}",
        f"  position: {{use: {PARTS['position']}}}",
        *_why(chosen.dropout, "dropout"),
        f"  encoder: {{use: {PARTS['encoder']}, layers: 2, heads: 1, dropout: {chosen.dropout.value}}}",
    ]
    return "\n".join(lines)


def _learning(chosen: Choices) -> str:
    lines = [
        *_why(chosen.users, "users", ""),
        f"batcher: {{use: {PARTS['batcher']}, users: {chosen.users.value}}}",
        *_why(chosen.loss, "loss", ""),
        f"loss: {{use: {PARTS[chosen.loss.value]}}}",
    ]
    if chosen.sampler is not None:
        options = ", ".join(f"{key}: {value}" for key, value in chosen.sampler.value.items())
        lines += [
            *_why(chosen.sampler, "sampler", ""),
            f"sampler: {{use: {PARTS['sampler']}, {options}}}",
        ]
    lines += [
        *_why(chosen.epochs, "epochs", ""),
        "trainer:",
        f"  use: {PARTS['trainer']}",
        "  learning_rate: 1e-3",
        f"  epochs: {chosen.epochs.value}",
        f"  patience: {chosen.patience.value}  # {chosen.patience.why}",
        "  metric: ndcg@10",
    ]
    return "\n".join(lines)


def _evaluation(chosen: Choices) -> str:
    lines = [
        *_why(chosen.seen, "seen", ""),
        "evaluators:",
        f"  - {{use: {PARTS['evaluator']}, k: [5, 10, 20], seen: {chosen.seen.value}}}",
    ]
    return "\n".join(lines)

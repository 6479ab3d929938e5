"""The flags that describe the machine. They are no recipe keys, and they are in the record."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recore.engine.machine import Machine


def add_machine(parser: argparse.ArgumentParser) -> None:
    """`--device`, `--precision`, `--threads`."""
    group = parser.add_argument_group("the machine")
    group.add_argument("--device", default="cpu", help="torch device, as in cuda:0 (default: cpu)")
    group.add_argument(
        "--precision", choices=["float32", "float64"], default="float32", help="default: float32"
    )
    group.add_argument(
        "--threads", type=int, default=None, metavar="N", help="torch threads (default: torch's)"
    )


def machine_of(args: argparse.Namespace) -> Machine:
    """The machine that the flags describe."""
    from recore.engine.machine import Machine

    return Machine(device=args.device, precision=args.precision, threads=args.threads)


def add_output(parser: argparse.ArgumentParser) -> None:
    """`--quiet`, `--json`."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quiet", action="store_true", help="print nothing but errors and the run's folder")
    group.add_argument("--json", action="store_true", help="one JSON object a line instead of text")

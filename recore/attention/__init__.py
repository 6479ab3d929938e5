"""The one door to attention: `attend`, and the terms that position schemes may add to it.

`terms.py` says what a term is, `door.py` checks and chooses a kernel, `plan.py` says which sequences share a
rectangle, `fused.py` is torch's kernel on them, `kept.py` ours where it is faster, `tiles.py` everything else, with
what each term does to a tile in `parts.py`, `bands.py` (distances, in place) and `tables.py` (any pairs).
"""

from recore.attention.door import attend
from recore.attention.terms import (
    PROJECT,
    Buckets,
    KeyBias,
    Normalise,
    PairFunction,
    PairTable,
    Rotate,
    Silu,
    Term,
)

__all__ = [
    "PROJECT",
    "Buckets",
    "KeyBias",
    "Normalise",
    "PairFunction",
    "PairTable",
    "Rotate",
    "Silu",
    "Term",
    "attend",
]

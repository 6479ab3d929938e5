"""A small world: the next user is learned, far above the most active ones and above the most recent ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import recore

SMALL: dict[str, Any] = {
    "data": {"users": 400, "items": 150, "longest": 50, "events": 20.0},
    "model": {"embedder": {"width": 24}, "item": {"embedder": {"width": 24}}},
    "trainer": {"epochs": 6, "patience": None},
}


def test_the_next_user_in_a_small_world(tmp_path: Path) -> None:
    """The shipped recipe on fewer users and items, for six epochs."""
    found = recore.run(recore.load("duality", overlay=SMALL), runs=tmp_path).test
    model, active, recent = (
        found[f"ndcg@10[next-user{rival}]"] for rival in ("", ":most-active", ":most-recent")
    )
    assert model > 3 * active
    assert model > recent
    assert found["ndcg@10"] > 0.2

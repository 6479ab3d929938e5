"""Every part of every distribution keeps its word: the kit run over all that comes in through entry points.

The counts are asserted, kinds, parts and checks: a suite that quietly shrank goes red.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from recore.component import Part
from recore.kinds import HEART, KINDS
from recore.plugins import discover
from recore.testing import counts, failures, part_of, run_checks

ROOT = Path(__file__).resolve().parents[1]

# What is shipped, by kind. A stranger's plugin beside them changes nothing here: only `recore*` is counted.
PARTS = {
    "dataset": {
        "recore-data:events",
        "recore-data:movielens-1m",
        "recore-data:sequences",
        "recore-world:world",
        "recore:appended",
    },
    "transform": {
        "recore-data:collapse-repeats",
        "recore-data:k-core",
        "recore-data:rating-at-least",
        "recore-data:since",
    },
    "split": {"recore-data:leave-last"},
    "tokenizer": {"recore-tokenizers:items"},
    "objective": {"recore-duality:next-user", "recore-objectives:next-item"},
    "model": {"recore-duality:dual", "recore:sequential"},
    "embedder": {"recore-embeddings:padding-safe"},
    "position": {
        "recore-positions:alibi",
        "recore-positions:known-item",
        "recore-positions:none",
        "recore-positions:prediction-absolute",
        "recore-positions:relative-bias",
        "recore-positions:relative-keys",
        "recore-positions:relative-keys-values",
        "recore-positions:rope",
        "recore-positions:start-absolute",
        "recore-positions:time-bias",
        "recore-positions:time-features",
        "recore-positions:time-intervals",
        "recore-positions:window-absolute",
    },
    "encoder": {"recore-sasrec:sasrec"},
    "batcher": {
        "recore-batchers:by-length",
        "recore-batchers:padded",
        "recore-batchers:ragged",
        "recore-batchers:untruncated",
        "recore-batchers:windows",
    },
    "sampler": {"recore-samplers:uniform"},
    "loss": {"recore-duality:consistency", "recore-losses:bce", "recore-losses:ce"},
    "trainer": {"recore-duality:duality", "recore-training:standard"},
    "evaluator": {"recore-duality:audience", "recore-evaluation:ranking"},
}
# Options under which a part is checked besides its defaults: each that changes what it promises or how it works.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "recore-tokenizers:items": [{"unknown": "drop"}, {"mask": True}],
    "recore-embeddings:padding-safe": [{"bias": True}],
    "recore-objectives:next-item": [{"known": 1.0}],
    "recore-positions:relative-bias": [
        {"layers": "shared"},
        {"max_distance": 2},
        {"buckets": "logarithmic"},
        {"buckets": "logarithmic", "number": 4, "max_distance": 3, "layers": "shared"},
    ],
    "recore-positions:relative-keys": [{"layers": "shared", "heads": "shared", "max_distance": 2}],
    "recore-positions:relative-keys-values": [
        {"layers": "shared", "heads": "shared", "max_distance": 2},
        {"tied": True},
        {"tied": True, "max_distance": 2},
    ],
    "recore-positions:alibi": [{"slopes": "learned"}],
    "recore-positions:rope": [{"base": 10.0}],
    "recore-positions:time-bias": [
        {"query_time": "target"},
        {"heads": "shared", "layers": "shared", "buckets": 8, "unit": 0.001},
    ],
    "recore-positions:time-intervals": [{"max_interval": 2, "layers": "each"}],
    "recore-positions:time-features": [
        {"query_time": "target", "layers": "shared", "periods": (1.0, 7.0), "unit": 60.0}
    ],
    "recore-positions:known-item": [{"evidence": "rank", "layers": "shared"}, {"evidence": "agreement"}],
    "recore-sasrec:sasrec": [
        {"preset": "paper"},
        {"preset": "tensorflow"},
        {"preset": "pytorch"},
        {"norm": "post", "residual": "input"},
        {"causal": False},
        {"heads": 2, "layers": 1},
    ],
    "recore-batchers:ragged": [{"order": "like-length"}],
    "recore-batchers:padded": [{"side": "right"}],
    "recore-batchers:by-length": [{"prefixes": 2}, {"order": "ascending", "tokens": 50}],
    "recore-batchers:windows": [{"context": 1, "tokens": 100}],
    "recore-batchers:untruncated": [{"order": "like-length", "tokens": 50}],
    "recore-samplers:uniform": [
        {"exclude": exclude, "shared": shared, "count": 3}
        for exclude in ("none", "target", "history")
        for shared in (False, True)
    ],
    "recore-evaluation:ranking": [{"seen": "none"}, {"k": [1, 3]}],
    # `stop` takes a gradient away on purpose; the plugin's own tests say which.
    "recore-duality:consistency": [{"form": "contrast"}],
    "recore-duality:audience": [{"seen": "none"}, {"k": (1, 3), "metrics": ("ndcg", "hr", "mrr")}],
}
CHECKS = {
    "split": 8,
    "tokenizer": 8,
    "objective": 10,
    "embedder": 10,
    "position": 12,
    "encoder": 11,
    "batcher": 6,
    "sampler": 10,
    "loss": 13,
    "evaluator": 9,
}
PITFALLS = "recore-pitfalls"  # its parts break their word on purpose: its own tests say how
PLUGINS = discover()


def chosen() -> list[Part[Any]]:
    """Every shipped part of a kind with checks, with its defaults and with each variant."""
    parts = []
    for kind in CHECKS:
        for found in PLUGINS.of(kind):
            if not found.provider.startswith("recore") or found.provider == PITFALLS:
                continue
            component = found.component
            for changes in [{}, *VARIANTS.get(found.name, [])]:
                needed = {"width": 8} if kind == "embedder" else {}
                parts.append(part_of(kind, component, found.provider, component.options(**needed, **changes)))
    return parts


ALL = chosen()


def label(part: Part[Any]) -> str:
    """The part's name with the options that are not its defaults."""
    said = [
        f"{field.name}={value}"
        for field in attrs.fields(type(part.options))
        if (value := getattr(part.options, field.name)) != field.default and field.name != "width"
    ]
    return f"{part.name}({','.join(said)})"


@pytest.mark.parametrize("part", ALL, ids=label)
def test_a_shipped_part_keeps_its_word(part: Part[Any]) -> None:
    results = run_checks(part, profile="quick")
    assert len(results) == CHECKS[part.kind]
    assert not failures(results), "\n".join(result.measured for result in failures(results))


def test_what_is_shipped_is_counted() -> None:
    here = {
        kind: {
            found.name
            for found in PLUGINS.of(kind)
            if found.provider.startswith("recore") and found.provider != PITFALLS
        }
        for kind in KINDS
    }
    assert here == PARTS
    assert counts() == CHECKS
    assert len(KINDS) == 14
    assert set(HEART) < set(CHECKS)
    assert len(ALL) == 73
    assert sum(CHECKS[part.kind] for part in ALL) == 749


def test_every_distribution_is_well() -> None:
    ours = [one for one in PLUGINS.distributions if one.name.startswith("recore")]
    assert [one.name for one in ours if one.status != "ok"] == []
    assert len(ours) == 15


def test_the_core_names_no_plugin() -> None:
    """Parts come in through the entry point only: nothing under recore/ names a distribution or its package."""
    names = sorted(path.name for path in (ROOT / "plugins").iterdir())
    assert len(names) == 14
    modules = "|".join(name.replace("-", "_") for name in names)
    named = re.compile(rf"\b({'|'.join(names)})\b|(import|from) ({modules})\b|\b({modules})[.:]")
    files = sorted((ROOT / "recore").rglob("*.py"))
    assert len(files) > 80
    assert [str(file) for file in files if named.search(file.read_text(encoding="utf-8"))] == []


PUBLIC = {
    "asking",
    "attention",
    "claims",
    "component",
    "contracts",
    "costs",
    "data",
    "digest",
    "errors",
    "evidence",
    "frames",
    "ragged",
    "resize",
    "rng",
    "textfiles",
    # What a model is made of: the options and the wiring of the assembled one, how a log becomes tensors, what is
    # earlier, and the run that it is fitted in (of the engine nothing else).
    "builtin",
    "engine.drive",
    "histories",
    "sequential",
    "timeline",
}


def test_plugins_use_the_cores_public_names_only() -> None:
    used: dict[str, set[str]] = {}
    for file in (ROOT / "plugins").glob("*/src/**/*.py"):
        text = file.read_text("utf-8")
        for path in re.findall(r"^\s*(?:from|import) recore\.([\w.]+)", text, re.MULTILINE):
            module = path if path.startswith("engine.") else path.partition(".")[0]
            used.setdefault(module, set()).add(file.name)
    assert set(used) >= {"contracts", "errors", "ragged", "attention"}
    assert {module: files for module, files in used.items() if module not in PUBLIC} == {}

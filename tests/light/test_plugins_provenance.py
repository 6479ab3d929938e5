"""Provenance: the hash is that of the code that is used, and changes with nothing else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from recore.plugins import discover
from recore.provenance import content_hash, provenance
from recore.recipe import from_tree

FILES = {"acme/__init__.py": "", "acme/plugin.py": "from recore import hookimpl\n", "acme/part.py": "x = 1\n"}
ENTRIES = "[recore.v1]\nmain = acme.plugin\n"


def hash_of(name: str = "acme") -> str:
    """The hash of an installed plugin."""
    provider = discover().provider(name)
    assert provider is not None
    return content_hash(provider)


def by_hand(files: dict[str, bytes]) -> str:
    """The hash as it is documented."""
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def test_the_hash_is_over_the_recorded_code(here: Any) -> None:
    here.distribution("acme", "1.0", ENTRIES, {**FILES, "acme/notes.txt": "a"}, record=True)
    assert hash_of() == by_hand({name: text.encode() for name, text in FILES.items()})
    before = hash_of()
    (here.folder / "acme/notes.txt").write_text("b", encoding="utf-8")
    (here.folder / "acme/__pycache__").mkdir(exist_ok=True)
    assert hash_of() == before
    (here.folder / "acme/part.py").write_text("x = 2\n", encoding="utf-8")
    assert hash_of() != before


def test_without_a_record_it_is_over_the_packages(here: Any) -> None:
    here.distribution("acme", "1.0", ENTRIES, FILES)
    assert hash_of() == by_hand({name: text.encode() for name, text in FILES.items()})
    (here.folder / "acme/new.py").write_text("", encoding="utf-8")
    assert hash_of() == by_hand({name: text.encode() for name, text in FILES.items()} | {"acme/new.py": b""})


def test_an_editable_install_is_hashed_where_its_source_is(
    here: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    source = tmp_path / "work" / "src"
    for name, text in FILES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text, encoding="utf-8")
    info = here.distribution("acme", "1.0", ENTRIES)
    (info / "direct_url.json").write_text(
        json.dumps({"url": (tmp_path / "work").as_uri(), "dir_info": {"editable": True}}), encoding="utf-8"
    )
    (info / "RECORD").write_text("acme.pth,,\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(source))
    provider = discover().provider("acme")
    assert provider is not None
    assert provider.editable
    assert provider.location == str(tmp_path / "work")
    record = provenance(provider)
    assert record == {
        "name": "acme",
        "version": "1.0",
        "sha256": by_hand({name: text.encode() for name, text in FILES.items()}),
        "editable": True,
        "loose": False,
    }


def test_a_lone_module_and_a_namespace_package(here: Any) -> None:
    here.distribution("acme-lone", "1.0", "[recore.v1]\nmain = acme_lone\n", {"acme_lone.py": "y = 1\n"})
    assert hash_of("acme-lone") == by_hand({"acme_lone.py": b"y = 1\n"})
    files = {
        "acmespace/mine/__init__.py": "",
        "acmespace/mine/plugin.py": "z = 1\n",
        "acmespace/other/x.py": "",
    }
    here.distribution("acme-space", "1.0", "[recore.v1]\nmain = acmespace.mine.plugin\n", files)
    assert hash_of("acme-space") == by_hand(
        {"acmespace/mine/__init__.py": b"", "acmespace/mine/plugin.py": b"z = 1\n"}
    )


def test_a_loose_file_is_hashed_as_it_was_run(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_bytes(b"x = 1\n")
    file.chmod(0o600)
    provider = discover(loose=[file]).provider("mine")
    assert provider is not None
    file.write_bytes(b"x = 2\n")
    assert provenance(provider) == {
        "name": "mine",
        "version": "",
        "sha256": hashlib.sha256(b"x = 1\n").hexdigest(),
        "editable": False,
        "loose": True,
    }


def test_a_recipe_knows_which_plugins_it_uses(tiny: Any) -> None:
    tree = {
        "recore": 1,
        "data": {"use": "tiny-parts:toy"},
        "split": {"use": "tiny-parts:last"},
        "model": {"use": "tiny-parts:count"},
    }
    records = from_tree(tree, plugins=tiny).provenance()
    assert [(record["name"], record["version"]) for record in records] == [("tiny-parts", "1.0")]
    assert len(records[0]["sha256"]) == 64

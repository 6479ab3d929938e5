"""What the tests share stands in `duality_helpers`; one thread, since the tensors are tiny."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from duality_helpers import RECIPE


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recipe as a file; its data come from an overlay."""
    file = tmp_path_factory.mktemp("duality") / "tiny-dual.yaml"
    file.write_text(RECIPE, encoding="utf-8")
    return file

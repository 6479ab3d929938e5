"""For all tests: one thread each. Tensors here are tiny, and the runner uses the cores."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

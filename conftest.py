"""For all tests: one thread each (tensors here are tiny, and the runner uses the cores), and in CI the same
examples every time, so that a red run is red again on the next machine."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")

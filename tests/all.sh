#!/usr/bin/env bash
# Everything that CI runs: linters, types, all tests, coverage of lines. Usage: tests/all.sh .venv/bin
set -euo pipefail
bin=$1
bash tests/lint.sh "$bin"
"$bin/python" -m pytest -q --cov --cov-report=term:skip-covered tests plugins

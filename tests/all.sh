#!/usr/bin/env bash
# Everything that CI runs: linters, types, all tests, coverage of lines. Usage: tests/all.sh .venv/bin
set -euo pipefail
bin=$1
bash tests/lint.sh "$bin"
"$bin/python" -m pytest -q --numprocesses 2 --cov --cov-report=term tests plugins

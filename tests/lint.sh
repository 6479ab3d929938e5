#!/usr/bin/env bash
# ruff and mypy over the core, every distribution, the tests and the scripts. Usage: tests/lint.sh .venv/bin
set -euo pipefail
bin=$1
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/mypy" recore
for plugin in plugins/*; do
  "$bin/mypy" "$plugin/src"
done

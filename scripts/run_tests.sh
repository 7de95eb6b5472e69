#!/usr/bin/env bash
# Sets up .venv, checks the code's form and runs the tests: bash scripts/run_tests.sh [pytest's options]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_environment.sh"
cd "$ROOT"

echo "Next: ruff."
"$BIN/ruff" check .
"$BIN/ruff" format --check .
echo "Next: the tests."
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # the models are so small that more threads cost more than they save
"$PYTHON" -m pytest --numprocesses auto --dist loadfile "$@"

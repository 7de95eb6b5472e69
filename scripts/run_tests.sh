#!/usr/bin/env bash
# Sets up .venv, checks the code's form and runs the tests: bash scripts/run_tests.sh [pytest's options]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_environment.sh"
cd "$ROOT"

echo "Next: ruff."
"$BIN/ruff" check .
"$BIN/ruff" format --check .
echo "Next: the tests."
"$PYTHON" -m pytest "$@"

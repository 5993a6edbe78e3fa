#!/usr/bin/env bash
# Lints and tests, on a machine with Python 3.11 and nothing else.
#   tools/test.sh              everything but the tests marked slow
#   tools/test.sh --all        everything
#   tools/test.sh ARGUMENTS    further arguments go to pytest: tests/data -k mixup -n0
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/_setup.sh

selection=(-m "not slow")
if [[ "${1:-}" == --all ]]; then
    selection=()
    shift
fi

setup_venv dev
python=.venv/bin/python
"$python" -m ruff check --quiet
"$python" -m ruff format --check --quiet
imports="$("$python" -c 'from importlinter.cli import lint_imports_command as run; run()' 2>&1)" || {
    echo "$imports" >&2
    exit 1
}
exec "$python" -m pytest -q -n 2 --dist loadfile --durations=10 "${selection[@]}" "$@"

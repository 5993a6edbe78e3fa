#!/usr/bin/env bash
# divco-launch, by its name of 0.1.0, in a checkout.
tools="$(dirname "${BASH_SOURCE[0]}")"
python="$tools/../.venv/bin/python"
[[ -x "$python" ]] || python=python3
exec "$python" "$tools/launch.py" "$@"

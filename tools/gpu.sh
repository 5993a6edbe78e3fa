#!/usr/bin/env bash
# Measures divco_tf on this machine's GPUs, one or several, and writes one JSON and one table: BUILD.md, "On a GPU".
#   tools/gpu.sh --data_dir FOLDER_OF_TFDS    about two hours; without the data the training rows are digits'
#   tools/gpu.sh --small                      the same parts in small, on whatever is there, a CPU too
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/_setup.sh

if [[ " $* " == *" --small "* ]]; then setup_venv; else setup_venv gpu; fi
exec .venv/bin/python tools/laboratory/gpu.py "$@"

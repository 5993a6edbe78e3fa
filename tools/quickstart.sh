#!/usr/bin/env bash
# From nothing to a served ensemble, on a machine with Python 3.11 and nothing else: divides a network, trains the large
# one and the four small ones on scikit-learn's digits, compares them, exports the ensemble, and loads the export in a
# process that does not know divco_tf. Safe to repeat: finished training is not done again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/_setup.sh

setup_venv
PATH="$PWD/.venv/bin:$PATH"
runs=runs/quickstart

show() {
    printf '\n$ %s\n' "$*"
    "$@"
}

printf '\n1. One large network, and the four small ones that it divides into\n'
show divco-summarize --backbone wide_resnet10_2 --split_factor 1 --image_size 8
show divco-summarize --backbone wide_resnet10_2 --split_factor 4 --image_size 8

printf '\n2. Train both: same recipe, epochs and seed\n'
show divco-train digits/wide_resnet10_2_split1 --model_dir "$runs/split1"
show divco-train digits/wide_resnet10_2_split4 --model_dir "$runs/split4"

printf '\n3. Compare them on images that neither has seen\n'
show divco-evaluate --model_dir "$runs/split1,$runs/split4"

printf '\n4. Export the ensemble, and load it where divco_tf is not known\n'
rm -rf "$runs/export"
show divco-export --model_dir "$runs/split4" --export_dir "$runs/export"
show python tools/quickstart/predictions.py "$runs/split4" "$runs/predictions.npz"
# TensorFlow writes to stderr while it starts; whoever wants to read it, or has to, finds it in the log.
second_process() { python tools/quickstart/second_process.py "$@" 2>"$runs/second_process.log" || { cat "$runs/second_process.log"; exit 1; }; }
show second_process "$runs/export/1" "$runs/predictions.npz"

cat <<END

Everything lies in $PWD/$runs:
  split1, split4   checkpoints, metrics.json, the config as it ran, TensorBoard's logs
  export           the SavedModel that TF Serving loads

Next:
  .venv/bin/tensorboard --logdir $runs
  .venv/bin/divco-train cifar10/wide_resnet10_2_split4_cpu --model_dir runs/cifar10 --data_dir FOLDER_OF_TFDS
  .venv/bin/divco-train image_folder/wide_resnet16_8_split4 --model_dir runs/mine --data_dir YOUR_FOLDER_OF_IMAGES
END

#!/usr/bin/env bash
# The study's cells, a seed after the other: docs/study/run.sh DATA_DIR [more flags of divco-sweep]
# Run twice at once it shares the cells; run again it goes on. A cell computes with one thread.
set -euo pipefail
data_dir="$1"
shift
export TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1
grids=()
for seed in 0 1 2 3 4 5; do
    each="seed=$seed; train_images=1000,2500,5000,10000; split_factor"
    grids+=(
        --grid "$each=1"
        --grid "$each=4; optimizer.divide_weight_decay=True; cotraining.loss=js,none"
        --grid "$each=4; optimizer.divide_weight_decay=False; cotraining.loss=js"
    )
done
exec "${DIVCO_SWEEP:-divco-sweep}" --config docs/study/study.gin --data_dir "$data_dir" --out docs/study "${grids[@]}" "$@"

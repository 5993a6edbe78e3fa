#!/usr/bin/env bash
# One argument at a time, on digits: docs/study/ablation.sh OUT [more flags of divco-sweep]
set -euo pipefail
out="$1"
shift
four="seed=0..5; split_factor=4"
one="seed=0..5; split_factor=1"
dropout="overrides.dropout=0.3"
exec "${DIVCO_SWEEP:-divco-sweep}" --config digits/wide_resnet10_2_split1 --out "$out" \
    --grid "$one" \
    --grid "$four" \
    --grid "seed=0..5; split_factor=2" \
    --grid "$four; cotraining.loss=none,kl" \
    --grid "$four; cotraining.weight=0.1,1.0" \
    --grid "$four; cotraining.loss=kl; cotraining.weight=1.0" \
    --grid "$four; optimizer.divide_weight_decay=True" \
    --grid "$four; $dropout; divide_regularisers=True,False" \
    --grid "$four; identical_views=True; cotraining.loss=js,none" \
    --grid "$four; same_initialisation=True" \
    --grid "$four; ensembling=mean_probabilities,max_logits" \
    --grid "$one; ema_decay=0.99" \
    --grid "$one; $dropout; dropout_samples=0,16" \
    "$@"

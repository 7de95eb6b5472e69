#!/usr/bin/env bash
# Classification by a pretrained model and by the same architecture with random weights (the floor; with finetune:
# supervised training from scratch), each with three seeds. A run that has its results file is not repeated. Paths are
# relative to the project's folder.
#
#     bash scripts/measure_downstream.sh MODEL NAME DATASET [option of evaluate_classification.py ...]
#     bash scripts/measure_downstream.sh outputs/fgmm-tiny esc10 data/esc10
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-.venv/bin/python}"
[ $# -ge 3 ] || { grep '^#  ' "$0" | cut -c3- >&2; exit 2; }
model="$1" name="$2" dataset="$3"
shift 3
for seed in 0 1 2; do
    for protocol in linear finetune; do
        for start in random pretrained; do
            output="model_cards/results/downstream/$name-$protocol-$start-seed$seed.json"
            [ -e "$output" ] && continue
            options=()
            [ "$start" = random ] && options+=(--random_init)
            "$PYTHON" scripts/evaluate_classification.py --model "$model" --dataset "$dataset" \
                --protocol "$protocol" --seed "$seed" "${options[@]}" "$@" --output "$output"
        done
    done
done

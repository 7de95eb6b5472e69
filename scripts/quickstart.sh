#!/usr/bin/env bash
# From nothing to an evaluated model: bash scripts/quickstart.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_environment.sh"
cd "$ROOT"

CORPUS=data/narrated
MODEL=outputs/fgmm-tiny
RESULTS=$MODEL/retrieval.json
THREADS="$("$PYTHON" -c 'import os; print(len(os.sched_getaffinity(0)))')"
LAUNCH=("$BIN/accelerate" launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no --quiet
    --num_cpu_threads_per_process "$THREADS")

echo "Next: rendering the narrated corpus into $CORPUS (two minutes; only what is not there yet)."
"$PYTHON" scripts/make_narrated_corpus.py --output "$CORPUS" --num_train 3000 --num_test 500 --seed 0

if [ ! -f "$MODEL/model.safetensors" ]; then
    echo "Next: pretraining fgmm-tiny on it (seven minutes on two CPU cores; goes on from the last checkpoint)."
    "${LAUNCH[@]}" scripts/pretrain.py --config scripts/configs/fgmm-tiny.yaml --resume_from latest
fi

if [ ! -f "$RESULTS" ] || [ "$MODEL/model.safetensors" -nt "$RESULTS" ]; then
    echo "Next: retrieval among the 500 held-out clips."
    "${LAUNCH[@]}" scripts/evaluate_retrieval.py --model "$MODEL" --dataset "$CORPUS" --split test --output "$RESULTS"
else
    PYTHONPATH=scripts "$PYTHON" - "$RESULTS" <<'END'
import json, sys
from evaluate_retrieval import format_table
print(format_table(json.load(open(sys.argv[1]))["metrics"]))
END
fi

cat <<END
The model is in $MODEL. In Python ($BIN/python):
    import modeling_fgmm, processing_fgmm
    from transformers import AutoModel, AutoProcessor
    model, processor = AutoModel.from_pretrained("$MODEL"), AutoProcessor.from_pretrained("$MODEL")
END

#!/usr/bin/env bash
# From nothing to an evaluated model: bash scripts/quickstart.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_environment.sh"
cd "$ROOT"

CORPUS=data/narrated
MODEL=outputs/fgmm-tiny
RESULTS=$MODEL/retrieval.json
# One thread a core that this process may use; torch takes a thread for each core of the machine.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$("$PYTHON" -c 'import os; print(len(os.sched_getaffinity(0)))')}"

echo "Next: rendering the narrated corpus into $CORPUS (two minutes; only what is not there yet)."
"$PYTHON" scripts/make_narrated_corpus.py --output "$CORPUS" --num_train 3000 --num_test 500 --seed 0

if [ ! -f "$MODEL/model.safetensors" ]; then
    echo "Next: pretraining fgmm-tiny on it (seven minutes on two CPU cores; resumes from the last checkpoint)."
    "$PYTHON" scripts/pretrain.py --config scripts/configs/fgmm-tiny.yaml --resume_from latest
fi

echo "Next: retrieval among the 500 held-out clips."
"$PYTHON" scripts/evaluate_retrieval.py --model "$MODEL" --dataset "$CORPUS" --split test --output "$RESULTS"

cat <<END
The model is in $MODEL. In Python ($BIN/python):
    import modeling_fgmm, processing_fgmm
    from transformers import AutoModel, AutoProcessor
    model, processor = AutoModel.from_pretrained("$MODEL"), AutoProcessor.from_pretrained("$MODEL")
END

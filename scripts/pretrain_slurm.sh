#!/usr/bin/env bash
# Pretrains on machines of a SLURM cluster, all GPUs of each; options are those of scripts/pretrain.py:
#   sbatch --nodes 8 scripts/pretrain_slurm.sh --config scripts/configs/fgmm-small.yaml --output_dir outputs/mine
# A process that dies is started again with all others, at most 3 times, and so is the job on other machines; each
# continues from the last checkpoint. Before its time is over the job gets SIGTERM, and writes one.
# ACCELERATE_CONFIG names another configuration than DDP, as scripts/configs/accelerate/fsdp2.yaml.
#SBATCH --job-name=fgmm
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail
export FGMM_CONFIG="${ACCELERATE_CONFIG:-scripts/configs/accelerate/ddp.yaml}"
FGMM_ADDRESS="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
# Else processes that are started again may meet the addresses of those before them in the launcher's store, and hang.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
export FGMM_ADDRESS FGMM_PORT="$((20000 + SLURM_JOB_ID % 20000))"

# One launcher on each machine, which starts a process for each of its GPUs.
exec srun bash -c '
    exec accelerate launch --config_file "$FGMM_CONFIG" --rdzv_backend c10d --max_restarts 3 \
        --num_machines "$SLURM_NNODES" --machine_rank "$SLURM_NODEID" \
        --num_processes "$((SLURM_NNODES * SLURM_GPUS_ON_NODE))" \
        --main_process_ip "$FGMM_ADDRESS" --main_process_port "$FGMM_PORT" \
        scripts/pretrain.py --resume_from latest "$@"' pretrain "$@"

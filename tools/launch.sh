# Sourced by dist_*.sh and slurm_*.sh: starts a tool in several processes.
set -euo pipefail
TOOLS="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}"

expect() { # number of arguments, their names, the arguments
    if [ $(($# - 2)) -lt "$1" ]; then
        echo "usage: $0 $2" >&2
        exit 2
    fi
}

# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
by_torchrun() { # processes, tool, its arguments
    exec python -m torch.distributed.run \
        --nnodes="${NNODES:-1}" \
        --node_rank="${NODE_RANK:-0}" \
        --master_addr="${MASTER_ADDR:-127.0.0.1}" \
        --nproc_per_node="$1" \
        --master_port="${PORT:-29500}" \
        "$TOOLS/$2" --launcher pytorch "${@:3}"
}

# [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] are variables of the environment.
by_slurm() { # partition, name of the job, tool, its arguments
    export MASTER_PORT=${MASTER_PORT:-$((12000 + RANDOM % 20000))}
    # SRUN_ARGS holds several words: it is left unquoted
    exec srun -p "$1" \
        --job-name="$2" \
        --gres=gpu:"${GPUS_PER_NODE:-8}" \
        --ntasks="${GPUS:-8}" \
        --ntasks-per-node="${GPUS_PER_NODE:-8}" \
        --cpus-per-task="${CPUS_PER_TASK:-5}" \
        --kill-on-bad-exit=1 \
        ${SRUN_ARGS:-} \
        python -u "$TOOLS/$3" --launcher slurm "${@:4}"
}

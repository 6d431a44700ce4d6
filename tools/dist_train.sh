#!/usr/bin/env bash
# Train with several processes: one per GPU, or, without GPUs, on the CPU (see launch.sh).
. "$(dirname "$0")/launch.sh"
expect 2 'CONFIG GPUS [arguments of train.py]' "$@"
by_torchrun "$2" train.py "$1" "${@:3}"

#!/usr/bin/env bash
# Test with several processes: one per GPU, or, without GPUs, on the CPU (see launch.sh).
. "$(dirname "$0")/launch.sh"
expect 3 'CONFIG CHECKPOINT GPUS [arguments of test.py]' "$@"
by_torchrun "$3" test.py "$1" "$2" "${@:4}"

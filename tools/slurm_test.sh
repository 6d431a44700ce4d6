#!/usr/bin/env bash
# Test under Slurm (see launch.sh).
. "$(dirname "$0")/launch.sh"
expect 4 'PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of test.py]' "$@"
by_slurm "$1" "$2" test.py "${@:3}"

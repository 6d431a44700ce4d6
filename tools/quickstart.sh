#!/usr/bin/env bash
# From nothing to a tested model, on data that it draws itself: environment,
# installation, data, masked pre-training, joint fine-tuning, test, pictures,
# and the prediction of a clip.
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
trap 'echo "quickstart.sh: stopped in stage \"$stage\", see above" >&2' ERR
times=()
started=$SECONDS
begin() { # name of the stage that starts
    stage=$1
    started=$SECONDS
    printf '\n=== %s ===\n' "$stage"
}
end() {
    times+=("$(printf '%-12s %4d s' "$stage" $((SECONDS - started)))")
}

begin 'install'
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
bash "$S4D_ROOT/tools/install.sh"
end
place=$S4D_ROOT
[ -z "$S4D_PACKED" ] || place=$PWD
cd "$S4D_ROOT"
export QUICKSTART_DIR="${QUICKSTART_DIR:-$place/work_dirs/quickstart}"
# a core for the data loader, the others for the model
cores=$(nproc 2>/dev/null || echo 2)
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((cores > 1 ? cores - 1 : 1))}"
pretrain=configs/quickstart/s4d_quickstart_pretrain.py
finetune=configs/quickstart/s4d_quickstart_finetune.py
out=$QUICKSTART_DIR
work_start=$SECONDS

# The checkpoint that a finished training left in its folder.
last_checkpoint() {
    [ -f "$1/last_checkpoint" ] || die "$1 holds no checkpoint"
    cat "$1/last_checkpoint"
}

begin 'data'
python tools/data/make_quickstart.py "$out/data"
end

# those of an earlier quickstart
rm -rf "$out/pretrain" "$out/finetune"

begin 'pre-train'
python tools/train.py "$pretrain" --work-dir "$out/pretrain"
pretrained=$(last_checkpoint "$out/pretrain")
end

begin 'fine-tune'
python tools/train.py "$finetune" --work-dir "$out/finetune" \
    --cfg-options load_from="$pretrained"
finetuned=$(last_checkpoint "$out/finetune")
end

begin 'test'
python tools/test.py "$finetune" "$finetuned" --work-dir "$out/test" \
    --dump "$out/test/predictions.pkl"
# the newest <time>/<time>.json holds the metrics
metrics=$(find "$out/test" -path '*/20*/20*.json' | sort | tail -n 1)
[ -n "$metrics" ] || die "the test left no metrics in $out/test"
end

begin 'pictures'
python tools/analysis_tools/plot_confusion_matrix.py "$finetune" \
    "$out/test/predictions.pkl" --out "$out/confusion_matrix.png"
python tools/analysis_tools/visualize_reconstruction.py "$pretrain" \
    "$pretrained" --out "$out/reconstruction.png"
end

begin 'predict'
faces=auto
if [ -z "$clip" ]; then # the first clip of the test split, which is cut already
    faces=none
    name=$(sed -n '2s/,.*//p' "$out/data/annotations/dfew_test.csv")
    clip="$out/data/clips/$name.mp4"
fi
python tools/predict.py "$clip" --model "$finetune" --weights "$finetuned" --faces "$faces" \
    --out "$out/predict"
end

begin 'summary'
python - "$metrics" <<'PY'
import json
import sys

with open(sys.argv[1]) as f:
    metrics = json.load(f)
print(f'{"":12} {"WAR":>6} {"UAR":>6}   (chance: 14.3)')
for modality in ('video', 'image'):
    row = [
        next((v for k, v in metrics.items()
              if k.endswith(f'{modality}/{name}')), None)
        for name in ('WAR', 'UAR')
    ]
    if None in row:
        sys.exit(f'{sys.argv[1]} has no WAR and UAR for {modality}; it has '
                 f'{", ".join(metrics)}')
    print(f'{modality:12} {row[0]:6.2f} {row[1]:6.2f}')
PY
echo
printf '%s\n' "${times[@]}"
printf '%-12s %4d s after installation\n' 'all' $((SECONDS - work_start))
echo
echo "metrics           $metrics"
echo "confusion matrix  $out/confusion_matrix.png"
echo "reconstruction    $out/reconstruction.png"
echo "model             $finetuned"

#!/usr/bin/env bash
# Trains the small SCN on the ISBI 2015 training films without the spatial augmentation, with smaller ranges and
# with the paper's, which are its overlay's, the same steps and seeds, all runs at once, and scores each once on Test1.
# usage: augmentation_isbi2015.sh DATASET_DIR OUTPUT_DIR ["SEEDS"] ["VARIANTS"] [further bundle options]
set -euo pipefail
data=$(realpath "$1"); out=$(mkdir -p "$2" && realpath "$2"); seeds=${3:-0}; variants=${4:-without small_ranges paper_ranges}
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")"); cd "$here/../.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
python3 "$here/environment.py" "$out/environment.json" "seeds=$seeds" "options=${*:5}"
configs=bundles/cephalometric_xray/configs
base="'$configs/train.json','$configs/methods/scn_small.json'"
one() { # NAME OVERLAY SEED options: train and score
    local name=$1_seed$3 files="$base${2:+,'$here/$2'}"
    local common=(--dataset_dir "$data" --bundle_root "$out" --seed "$3" --method "$name")
    python3 -W ignore -m monai.bundle run --config_file "[$files]" "${common[@]}" "${@:4}" \
        > "$out/$name.train.log" 2>&1
    python3 -W ignore -m monai.bundle run --config_file "[$files,'$configs/evaluate.json']" "${common[@]}" \
        --max_figures 4 > "$out/$name.evaluate.log" 2>&1
    cp "$out/eval/$name/metrics.json" "$out/$name.metrics.json"
    echo "$name"; cat "$out/eval/$name/table.txt"
}
jobs=()
for seed in $seeds; do
    for variant in $variants; do
        case $variant in
            without) one "$variant" without_spatial_augmentation.json "$seed" --num_workers 2 "${@:5}" & ;;
            small_ranges) one "$variant" small_range_augmentation.json "$seed" --augment_on_device True "${@:5}" & ;;
            paper_ranges) one "$variant" "" "$seed" --augment_on_device True "${@:5}" & ;;
            *) echo "no variant $variant" >&2; exit 2 ;;
        esac
        jobs+=($!)
    done
done
for job in "${jobs[@]}"; do wait "$job"; done

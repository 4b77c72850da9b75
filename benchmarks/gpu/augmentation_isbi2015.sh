#!/usr/bin/env bash
# Trains the small SCN on the ISBI 2015 training films without the spatial augmentation, with the ranges of its overlay
# and with the paper's, the same steps and seeds, all runs at once, and scores each once on Test1.
# usage: augmentation_isbi2015.sh DATASET_DIR OUTPUT_DIR ["SEEDS"] [further bundle options]
set -euo pipefail
data=$(realpath "$1"); out=$(mkdir -p "$2" && realpath "$2"); seeds=${3:-0}
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")"); cd "$here/../.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
python3 "$here/environment.py" "$out/environment.json" "seeds=$seeds" "options=${*:4}"
configs=bundles/cephalometric_xray/configs
base="'$configs/train.json','$configs/methods/scn_small.json'"
one() { # NAME OVERLAY SEED options: train and score
    local name=$1_seed$3 files="$base${2:+,'$here/$2'}"
    local common=(--dataset_dir "$data" --bundle_root "$out" --seed "$3" --method "$name")
    python3 -W ignore -m monai.bundle run --config_file "[$files]" "${common[@]}" --num_workers 2 "${@:4}" \
        > "$out/$name.train.log" 2>&1
    python3 -W ignore -m monai.bundle run --config_file "[$files,'$configs/evaluate.json']" "${common[@]}" \
        --max_figures 4 > "$out/$name.evaluate.log" 2>&1
    cp "$out/eval/$name/metrics.json" "$out/$name.metrics.json"
    echo "$name"; cat "$out/eval/$name/table.txt"
}
jobs=()
for seed in $seeds; do
    one without without_spatial_augmentation.json "$seed" "${@:4}" & jobs+=($!)
    one small_ranges "" "$seed" --augment_on_device True "${@:4}" & jobs+=($!)
    one paper_ranges paper_augmentation.json "$seed" --augment_on_device True "${@:4}" & jobs+=($!)
done
for job in "${jobs[@]}"; do wait "$job"; done

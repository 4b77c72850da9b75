#!/usr/bin/env bash
# Trains one method of the bundle as published on the ISBI 2015 training films and scores it once on Test1.
# usage: scn_isbi2015.sh DATASET_DIR OUTPUT_DIR [METHOD=scn|localization_unet] [SEED] [further bundle options]
set -euo pipefail
data=$(realpath "$1"); out=$(mkdir -p "$2" && realpath "$2"); method=${3:-scn}; seed=${4:-0}
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")"); cd "$here/../.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
python3 "$here/environment.py" "$out/$method.environment.json" "seed=$seed" "options=${*:5}"
configs=bundles/cephalometric_xray/configs
files="'$configs/train.json'"
[ "$method" = scn ] || files="$files,'$configs/methods/$method.json'"
common=(--dataset_dir "$data" --bundle_root "$out" --seed "$seed")
python3 -W ignore -m monai.bundle run --config_file "[$files]" "${common[@]}" \
    --augment_on_device True "${@:5}" > "$out/$method.train.log" 2>&1
python3 -W ignore -m monai.bundle run --config_file "[$files,'$configs/evaluate.json']" "${common[@]}" \
    --max_figures 6 > "$out/$method.evaluate.log" 2>&1
cp "$out/eval/$method/metrics.json" "$out/$method.metrics.json"
cat "$out/eval/$method/table.txt"

#!/usr/bin/env bash
# Cross-validates one method of a volume bundle, by default the SCN with the paper's 3D configuration.
# usage: scn_volumes.sh BUNDLE DATASET_DIR OUTPUT_DIR [METHOD=scn|localization_unet|scn_small|...] [FOLDS=0,1,2,3,4]
set -euo pipefail
bundle=bundles/$1; data=$(realpath "$2"); out=$(mkdir -p "$3" && realpath "$3"); method=${4:-scn}; folds=${5:-0,1,2,3,4}
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")"); cd "$here/../.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
python3 "$here/environment.py" "$out/$method.environment.json" "bundle=$1" "folds=$folds" "options=${*:6}"
python3 -W ignore -m benchmarks.cross_validate "$bundle" --dataset_dir "$data" --out "$out" --methods "$method" \
    --folds "$folds" --set augment_on_device=True "${@:6}" > "$out/$method.log" 2>&1
cp "$out/eval/$method/pooled/metrics.json" "$out/$method.metrics.json"
cat "$out/eval/$method/pooled/table.txt"

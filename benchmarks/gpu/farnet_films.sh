#!/usr/bin/env bash
# Trains FARNet as published on the ISBI 2015 head films, then on the AASCE spine films, and scores each once. The same
# command goes on after the last whole epoch of a run that was stopped; what is finished is not done again.
# usage: [PRETRAINED=DENSENET121_FILE] farnet_films.sh HEAD_DIR SPINE_DIR OUTPUT_DIR [SEED] [further bundle options]
set -euo pipefail
head=$(realpath "$1"); spine=$(realpath "$2"); out=$(mkdir -p "$3" && realpath "$3"); seed=${4:-0}
pretrained=${PRETRAINED:-False}
if [ "$pretrained" != False ] && [ "$pretrained" != True ]; then
    [ -f "$pretrained" ] || { echo "PRETRAINED: there is no file $pretrained" >&2; exit 1; }
    pretrained=$(realpath "$pretrained")
fi
# ImageNet weights belong to batch normalisation, which needs more than one film in a batch.
norm=(); [ "$pretrained" = False ] || norm=(--norm batch --batch_size 4)
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")"); cd "$here/../.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
python3 "$here/environment.py" "$out/environment.json" "seed=$seed" "pretrained=$pretrained" "options=${*:5}"
one() { # BUNDLE DATA OVERLAY options: train and score
    local configs=bundles/$1/configs name=$1
    local files="'$configs/train.json'${3:+,'$configs/methods/$3.json'}"
    local common=(--dataset_dir "$2" --bundle_root "$out/$name" --seed "$seed" "${norm[@]}" "${@:4}")
    if [ ! -f "$out/$name.trained" ]; then
        python3 -W ignore -m monai.bundle run --config_file "[$files]" "${common[@]}" --pretrained "$pretrained" \
            --augment_on_device True --resume True >> "$out/$name.train.log" 2>&1
        touch "$out/$name.trained"
    fi
    if [ ! -f "$out/$name.metrics.json" ]; then
        python3 -W ignore -m monai.bundle run --config_file "[$files,'$configs/evaluate.json']" "${common[@]}" \
            --max_figures 6 > "$out/$name.evaluate.log" 2>&1
        cp "$out/$name/eval/farnet/metrics.json" "$out/$name.metrics.json"
    fi
    echo "$name"; cat "$out/$name/eval/farnet/table.txt"
}
one cephalometric_xray "$head" farnet "${@:5}"
one spine_xray "$spine" "" "${@:5}"

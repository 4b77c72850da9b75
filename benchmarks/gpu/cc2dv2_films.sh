#!/usr/bin/env bash
# Climbs CC2Dv2's ladder as published on the ISBI 2015 head films, from one labelled film, with and then without the
# distance bias: self-supervision, choice of the film, pseudo-labels, student; template matching and student are scored
# once each. Both climb from the film that the first has chosen. The same command goes on after the last saved epoch of a
# run that was stopped; what is finished is not done again.
# usage: [PRETRAINED=VGG19_FILE] [OVERLAYS="cc2dv2 cc2dv2_code"] cc2dv2_films.sh HEAD_DIR OUTPUT_DIR [SEED] [further
# bundle options]
set -euo pipefail
head=$(realpath "$1"); out=$(mkdir -p "$2" && realpath "$2"); seed=${3:-0}; overlays=${OVERLAYS:-cc2dv2}
pretrained=${PRETRAINED:-False}
if [ "$pretrained" != False ] && [ "$pretrained" != True ]; then
    [ -f "$pretrained" ] || { echo "PRETRAINED: there is no file $pretrained" >&2; exit 1; }
    pretrained=$(realpath "$pretrained")
fi
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")"); cd "$here/../.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
python3 "$here/environment.py" "$out/environment.json" "seed=$seed" "pretrained=$pretrained" "overlays=$overlays" \
    "options=${*:4}"
configs=bundles/cephalometric_xray/configs; files="'$configs/train.json'"
for overlay in $overlays; do files="$files,'$configs/methods/$overlay.json'"; done
climb() { # NAME options: all stages, then the scores
    local name=$1; shift
    local common=(--dataset_dir "$head" --bundle_root "$out/$name" --ladder cc2dv2 --seed "$seed" "$@")
    mkdir -p "$out/$name"
    for stage in self_supervision choose_template pseudo_labels student; do
        [ ! -f "$out/$name/$stage.done" ] || continue
        local training=()
        case $stage in self_supervision|student) training=(--pretrained "$pretrained" --resume True);; esac
        python3 -W ignore -m monai.bundle run "$stage" --config_file "[$files]" "${common[@]}" "${training[@]}" \
            >> "$out/$name/$stage.log" 2>&1
        touch "$out/$name/$stage.done"
    done
    score "$name" matching "$files,'$configs/methods/cc2dv2_matching.json'" "${common[@]}"
    score "$name" student "$files" "${common[@]}"
}
score() { # NAME WHAT FILES options: on Test1
    local eval=$out/$1/scores/$2
    if [ ! -f "$out/$1.$2.metrics.json" ]; then
        python3 -W ignore -m monai.bundle run --config_file "[$3,'$configs/evaluate.json']" "${@:4}" \
            --output_dir "$eval" --max_figures 6 > "$out/$1/evaluate_$2.log" 2>&1
        cp "$eval/metrics.json" "$out/$1.$2.metrics.json"
    fi
    echo "$1, $2"; cat "$eval/table.txt"
}
climb with_bias "${@:4}"
film=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["ranking"][0]["case"])' \
    "$out/with_bias/eval/cc2dv2/template.json" 2>/dev/null || true)
climb without_bias --distance_slope 0 "${@:4}" ${film:+--template "['$film']"}

#!/usr/bin/env bash
# Climbs EdgeTrans's ladder as published on the ISBI 2015 head films, from one labelled film: self-supervision and choice of
# the film (CC2Dv2's), registration, pseudo-labels, co-teaching; then co-teaching without one part each, from the same
# pseudo-labels, and the registration without edges. Registrations and students are scored once each, on Test1. The same
# command goes on after the last saved epoch of a run that was stopped; what is finished is not done again.
# usage: [PRETRAINED=HRNET_W18_FILE] [TEMPLATE=CASE] [OVERLAYS="cc2dv2 edgetrans"] edgetrans_films.sh HEAD_DIR OUTPUT_DIR
# [SEED] [further bundle options]; with TEMPLATE the film is not chosen anew
set -euo pipefail
head=$(realpath "$1"); out=$(mkdir -p "$2" && realpath "$2"); seed=${3:-0}; overlays=${OVERLAYS:-cc2dv2 edgetrans}
pretrained=${PRETRAINED:-False}
if [ "$pretrained" != False ] && [ "$pretrained" != True ]; then
    [ -f "$pretrained" ] || { echo "PRETRAINED: there is no file $pretrained" >&2; exit 1; }
    pretrained=$(realpath "$pretrained")
fi
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")"); cd "$here/../.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
python3 "$here/environment.py" "$out/environment.json" "seed=$seed" "pretrained=$pretrained" "overlays=$overlays" \
    "template=${TEMPLATE:-chosen}" "options=${*:4}"
configs=bundles/cephalometric_xray/configs; files="'$configs/train.json'"
for overlay in $overlays; do files="$files,'$configs/methods/$overlay.json'"; done
common=(--dataset_dir "$head" --ladder edgetrans --seed "$seed" "${@:4}")
stage() { # NAME STAGE options: one stage of the ladder in the folder NAME
    local name=$1 stage=$2; shift 2
    [ ! -f "$out/$name/$stage.done" ] || return 0
    mkdir -p "$out/$name"
    local training=()
    # Public weights are those of the registration's and the students' HRNet, not of the matcher's encoder.
    case $stage in self_supervision) training=(--resume True);; esac
    case $stage in registration|student) training=(--pretrained "$pretrained" --resume True);; esac
    python3 -W ignore -m monai.bundle run "$stage" --config_file "[$files]" --bundle_root "$out/$name" "${common[@]}" \
        "${training[@]}" "$@" >> "$out/$name/$stage.log" 2>&1
    touch "$out/$name/$stage.done"
}
score() { # NAME WHAT FILES options: on Test1
    local name=$1 what=$2 list=$3; shift 3
    local eval=$out/$name/scores/$what
    if [ ! -f "$out/$name.$what.metrics.json" ]; then
        python3 -W ignore -m monai.bundle run --config_file "[$list,'$configs/evaluate.json']" --bundle_root "$out/$name" \
            "${common[@]}" "$@" --output_dir "$eval" --max_figures 6 > "$out/$name/evaluate_$what.log" 2>&1
        cp "$eval/metrics.json" "$out/$name.$what.metrics.json"
    fi
    echo "$name, $what"; cat "$eval/table.txt"
}
register() { # NAME options: registration, its pseudo-labels and score
    stage "$1" registration "${@:2}"
    stage "$1" pseudo_labels "${@:2}"
    score "$1" registration "$files,'$configs/methods/edgetrans_registration.json'" "${@:2}"
}
teach() { # NAME options: students from the pseudo-labels of the whole method, and their score
    stage "$1" student --pseudo_label_dir "$labels" "${@:2}"
    score "$1" student "$files" --pseudo_label_dir "$labels" "${@:2}"
}
film=${TEMPLATE:-}
if [ -z "$film" ]; then
    stage edgetrans self_supervision
    stage edgetrans choose_template
    film=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["ranking"][0]["case"])' \
        "$out/edgetrans/eval/edgetrans/template.json")
fi
common+=(--template "['$film']")
labels=$out/edgetrans/pseudo_labels
register edgetrans --pseudo_label_dir "$labels"
teach edgetrans
teach no_self_consistency --self_weight 0
teach no_cross_consistency --cross_weight 0
teach no_selection --forget_rate 0
register no_edges --registration_objective#local_loss#edge_weight 0

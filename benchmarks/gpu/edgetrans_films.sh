#!/usr/bin/env bash
# Climbs EdgeTrans's ladder as published on the ISBI 2015 head films, from one labelled film: self-supervision and choice of
# the film (CC2Dv2's), registration, pseudo-labels, co-teaching; then co-teaching without one part each, from the same
# pseudo-labels, and the registration without edges. Registrations and students are scored once each, on Test1. The same
# command goes on after the last saved epoch of a run that was stopped; what is finished is not done again.
# usage: [PRETRAINED=HRNET_W18_FILE] [TEMPLATE=CASE] [OVERLAYS="cc2dv2 edgetrans"] edgetrans_films.sh HEAD_DIR OUTPUT_DIR
# [SEED] [further bundle options]; with TEMPLATE the film is not chosen anew
set -euo pipefail
ladder=edgetrans; overlays=${OVERLAYS:-cc2dv2 edgetrans}; facts=("template=${TEMPLATE:-chosen}")
weighted="registration student" # the matcher's encoder is no HRNet
source "$(dirname "${BASH_SOURCE[0]}")/one_annotation.sh"
labels=$out/edgetrans/pseudo_labels
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
    film=$(chosen_film edgetrans)
fi
common+=(--template "['$film']")
register edgetrans --pseudo_label_dir "$labels"
teach edgetrans
teach no_self_consistency --self_weight 0
teach no_cross_consistency --cross_weight 0
teach no_selection --forget_rate 0
register no_edges --registration_objective#local_loss#edge_weight 0

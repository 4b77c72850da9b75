#!/usr/bin/env bash
# Climbs CC2Dv2's ladder as published on the ISBI 2015 head films, from one labelled film, with and then without the
# distance bias: self-supervision, choice of the film, pseudo-labels, student; template matching and student are scored
# once each. Both climb from the film that the first has chosen. The same command goes on after the last saved epoch of a
# run that was stopped; what is finished is not done again.
# usage: [PRETRAINED=VGG19_FILE] [OVERLAYS="cc2dv2 cc2dv2_code"] cc2dv2_films.sh HEAD_DIR OUTPUT_DIR [SEED] [further
# bundle options]
set -euo pipefail
ladder=cc2dv2; overlays=${OVERLAYS:-cc2dv2}; weighted="self_supervision student"; facts=()
source "$(dirname "${BASH_SOURCE[0]}")/one_annotation.sh"
climb() { # NAME options: all stages, then the scores
    local name=$1; shift
    for stage in self_supervision choose_template pseudo_labels student; do stage "$name" "$stage" "$@"; done
    score "$name" matching "$files,'$configs/methods/cc2dv2_matching.json'" "$@"
    score "$name" student "$files" "$@"
}
climb with_bias
film=$(chosen_film with_bias 2>/dev/null || true) # none where the options name the film
climb without_bias --distance_slope 0 ${film:+--template "['$film']"}

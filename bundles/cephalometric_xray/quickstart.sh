#!/usr/bin/env bash
# Trains, evaluates and predicts on the phantom with the small overlay, a few minutes on two cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
run() { python -W ignore -m monai.bundle run "$@"; }
small="'configs/methods/scn_small.json','configs/methods/quickstart.json'"

echo "== 1/3 train on the phantom"
run --config_file "['configs/train.json',$small]"
echo "== 2/3 evaluate on the phantom's test films"
run --config_file "['configs/train.json',$small,'configs/evaluate.json']"
echo "== 3/3 predict films without points"
run --config_file "['configs/inference.json',$small]"

out="$PWD/eval/quickstart"
echo
cat "$out/table.txt"
echo
echo "PHANTOM DATA: the numbers say that the program works, nothing about patients."
echo "report       $out/report.html"
echo "figures      $out/figures"
echo "metrics      $out/metrics.json"
echo "predictions  $out/predictions (3D Slicer .mrk.json, and landmarks.csv)"

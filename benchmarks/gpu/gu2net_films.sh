#!/usr/bin/env bash
# Trains GU2Net on head and spine films together, on each alone, and the plain U-Net on both, with the same steps per
# data set, all at once, and scores each once on its test films.
# usage: gu2net_films.sh HEAD_DIR SPINE_DIR OUTPUT_DIR ["_small"] [EPOCHS] [BATCHES_PER_DATA_SET] [further bundle options]
set -euo pipefail
head=$(realpath "$1"); spine=$(realpath "$2"); out=$(mkdir -p "$3" && realpath "$3")
size=${4-}; epochs=${5:-100}; batches=${6:-60}
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")"); cd "$here/../.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
python3 "$here/environment.py" "$out/environment.json" "size=$size" "epochs=$epochs" "batches=$batches" "options=${*:7}"
bundle=bundles/universal_xray
one() { # NAME METHOD BATCHES options: train and score
    local name=$1 files="'$bundle/configs/train.json'" overlay="$bundle/configs/methods/$2$size.json"
    [ ! -f "$overlay" ] || files="$files,'$overlay'"
    local common=(--bundle_root "$bundle" --ckpt_dir "$out/$name/models" --output_dir "$out/$name/eval" --method "$name")
    python3 -W ignore -m monai.bundle run --config_file "[$files]" "${common[@]}" --max_epochs "$epochs" \
        --epoch_batches "$3" --mixing equal "${@:4}" > "$out/$name.train.log" 2>&1
    python3 -W ignore -m monai.bundle run --config_file "[$files,'$bundle/configs/evaluate.json']" "${common[@]}" \
        --max_figures 4 "${@:4}" > "$out/$name.evaluate.log" 2>&1
    for anatomy in "$out/$name/eval"/*/; do
        [ ! -f "$anatomy/table.txt" ] || { echo "$name"; cat "$anatomy/table.txt"; }
    done
}
one gu2net_both gu2net $((2 * batches)) --head_dir "$head" --spine_dir "$spine" "${@:7}" & jobs=($!)
one unet_both unet $((2 * batches)) --head_dir "$head" --spine_dir "$spine" "${@:7}" & jobs+=($!)
one gu2net_head gu2net "$batches" --head_dir "$head" "${@:7}" & jobs+=($!)
one gu2net_spine gu2net "$batches" --spine_dir "$spine" "${@:7}" & jobs+=($!)
for job in "${jobs[@]}"; do wait "$job"; done

# Sourced by the jobs that climb from one annotated head film, with their arguments HEAD_DIR OUTPUT_DIR [SEED] [further bundle
# options]; they set `ladder`, `overlays`, `weighted` (the stages whose networks begin with PRETRAINED) and `facts` before.
head=$(realpath "$1"); out=$(mkdir -p "$2" && realpath "$2"); seed=${3:-0}; pretrained=${PRETRAINED:-False}
if [ "$pretrained" != False ] && [ "$pretrained" != True ]; then
    [ -f "$pretrained" ] || { echo "PRETRAINED: there is no file $pretrained" >&2; exit 1; }
    pretrained=$(realpath "$pretrained")
fi
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")"); cd "$here/../.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
python3 "$here/environment.py" "$out/environment.json" "seed=$seed" "pretrained=$pretrained" "overlays=$overlays" \
    "${facts[@]}" "options=${*:4}"
configs=bundles/cephalometric_xray/configs; files="'$configs/train.json'"
for overlay in $overlays; do files="$files,'$configs/methods/$overlay.json'"; done
common=(--dataset_dir "$head" --ladder "$ladder" --seed "$seed" "${@:4}")

stage() { # NAME STAGE options: one stage of the ladder in the folder NAME, unless it is done
    local name=$1 stage=$2 training=(); shift 2
    [ ! -f "$out/$name/$stage.done" ] || return 0
    mkdir -p "$out/$name"
    case $stage in self_supervision|registration|student) training=(--resume True);; esac
    case " $weighted " in *" $stage "*) training+=(--pretrained "$pretrained");; esac
    python3 -W ignore -m monai.bundle run "$stage" --config_file "[$files]" --bundle_root "$out/$name" "${common[@]}" \
        "${training[@]}" "$@" >> "$out/$name/$stage.log" 2>&1
    touch "$out/$name/$stage.done"
}

score() { # NAME WHAT FILES options: on Test1, once
    local name=$1 what=$2 list=$3; shift 3
    local eval=$out/$name/scores/$what
    if [ ! -f "$out/$name.$what.metrics.json" ]; then
        python3 -W ignore -m monai.bundle run --config_file "[$list,'$configs/evaluate.json']" --bundle_root "$out/$name" \
            "${common[@]}" "$@" --output_dir "$eval" --max_figures 6 > "$out/$name/evaluate_$what.log" 2>&1
        cp "$eval/metrics.json" "$out/$name.$what.metrics.json"
    fi
    echo "$name, $what"; cat "$eval/table.txt"
}

chosen_film() { # NAME: the film that the stages in the folder NAME chose
    python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["ranking"][0]["case"])' \
        "$out/$1/eval/$ladder/template.json"
}

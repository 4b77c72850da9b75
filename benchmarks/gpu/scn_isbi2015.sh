#!/usr/bin/env bash
# Trains SCN and the Localization U-Net as published on the ISBI 2015 training films and scores each once on Test1.
# usage: scn_isbi2015.sh DATASET_DIR OUTPUT_DIR [SEED]
set -euo pipefail
data=$(realpath "$1"); out=$(mkdir -p "$2" && realpath "$2"); seed=${3:-0}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
python3 - "$out/environment.json" "$seed" <<'PY'
import json, platform, subprocess, sys, torch, monai
commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip() or "unknown"
if not torch.cuda.is_available():
    sys.exit("this job is for a GPU, and torch sees none")
facts = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "monai": monai.__version__,
         "python": platform.python_version(), "seed": int(sys.argv[2]), "commit": commit}
json.dump(facts, open(sys.argv[1], "w"), indent=2)
PY
bundle=bundles/cephalometric_xray/configs
for method in scn localization_unet; do
    files="'$bundle/train.json'"
    [ "$method" = scn ] || files="$files,'$bundle/methods/$method.json'"
    common=(--dataset_dir "$data" --bundle_root "$out" --seed "$seed" --amp true)
    python3 -W ignore -m monai.bundle run --config_file "[$files]" "${common[@]}" > "$out/$method.train.log" 2>&1
    python3 -W ignore -m monai.bundle run --config_file "[$files,'$bundle/evaluate.json']" "${common[@]}" \
        > "$out/$method.evaluate.log" 2>&1
    cp "$out/eval/$method/metrics.json" "$out/$method.metrics.json"
    cat "$out/eval/$method/table.txt"
done

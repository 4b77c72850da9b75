# Copyright (c) The monai_landmarks developers
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Cross-validation of a bundle: each fold by the bundle's own commands, all folds scored together, nothing done twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import cross_validate
from monai_landmarks.data.phantoms import write_lumbar_mr_phantom

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "lumbar_mri"
TINY = ["network_def#channels=4", "network_def#levels=2", "max_epochs=1", "val_interval=1", "pixel_mm=9"]
TINY += ["grid=[28, 28, 12]", "num_validation=1", "amp=False", "max_figures=1"]


@pytest.mark.slow
def test_one_fold_is_trained_calibrated_tested_and_not_done_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    write_lumbar_mr_phantom(data, num_cases=5, reduction=4)
    command = [str(BUNDLE), "--dataset_dir", str(data), "--out", str(out), "--folds", "0"]
    command += [text for setting in TINY for text in ("--set", setting)]
    assert cross_validate.main(command) == 0
    assert "phantom/identification" in capsys.readouterr().out
    metrics = json.loads((out / "eval/scn_small/pooled/metrics.json").read_text())
    assert metrics["phantom"] is True
    assert metrics["num_cases"] == 1
    assert (out / "models/scn_small/fold0/presence.json").is_file()

    def refuse(*_: object) -> None:
        raise AssertionError("a finished fold was run again")

    monkeypatch.setattr(cross_validate, "run_bundle", refuse)
    assert cross_validate.main(command) == 0

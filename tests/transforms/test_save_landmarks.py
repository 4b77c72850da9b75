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
"""SaveLandmarks: what is written, under which name, and that nothing is lost."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate

from monai_landmarks.data import read_landmarks
from monai_landmarks.geometry import LandmarkError, mark_deformed
from monai_landmarks.transforms import SaveLandmarks, SaveLandmarksd
from monai_landmarks.transforms.save import case_of

NAN = float("nan")
NAMES = ["tip", "base"]
POINTS_3D = torch.tensor([[1.25, -2.5, 3.75], [NAN] * 3], dtype=torch.float64)
POINTS_2D = torch.tensor([[1.25, 2.5], [NAN] * 2], dtype=torch.float64)


def image(name: str | None, dims: int = 3) -> MetaTensor:
    meta = {} if name is None else {"filename_or_obj": name}
    return MetaTensor(torch.zeros(1, *(4,) * dims), affine=torch.eye(dims + 1), meta=meta)


@pytest.mark.parametrize("ending", [".mrk.json", ".fcsv", ".csv"])
@pytest.mark.parametrize("points", [POINTS_2D, POINTS_3D], ids=["2d", "3d"])
def test_what_is_saved_is_read_back(tmp_path, points, ending):
    path = SaveLandmarks(tmp_path / "new" / "folder", NAMES, "_pred", ending)(points, "007", confidence=[0.5, NAN])
    assert path == tmp_path / "new" / "folder" / f"007_pred{ending}"
    back = read_landmarks(path, names=NAMES, spatial_dims=points.shape[1])
    np.testing.assert_allclose(back.points, points, atol=1e-6)
    assert back.status == ("defined", "missing")


def test_a_film_is_at_z_0_in_lps_for_slicer_and_predictions_may_be_previews(tmp_path):
    path = SaveLandmarks(tmp_path, NAMES, status="preview")(POINTS_2D, "007", confidence=torch.tensor([0.5, NAN]))
    markup = json.loads(path.read_text())["markups"][0]
    assert markup["coordinateSystem"] == "LPS"
    assert markup["controlPoints"][0]["position"] == [1.25, 2.5, 0.0]
    assert read_landmarks(path).status == ("preview", "missing")
    assert read_landmarks(path).confidence[0] == 0.5


def test_a_volume_is_in_lps_for_slicer(tmp_path):
    path = SaveLandmarks(tmp_path, NAMES)(POINTS_3D, "007")
    assert json.loads(path.read_text())["markups"][0]["controlPoints"][0]["position"] == [-1.25, 2.5, 3.75]
    path = SaveLandmarks(tmp_path, NAMES, "_ras", space="RAS")(POINTS_3D, "007")
    assert json.loads(path.read_text())["markups"][0]["controlPoints"][0]["position"] == [1.25, -2.5, 3.75]


@pytest.mark.parametrize("points", [
    POINTS_2D.float(),
    POINTS_2D.numpy(),
    POINTS_2D.tolist(),
    MetaTensor(POINTS_2D, affine=9 * torch.eye(3)),
    POINTS_2D.clone().requires_grad_(),
])  # fmt: skip
def test_kinds_of_points(tmp_path, points):
    path = SaveLandmarks(tmp_path, NAMES)(points, "a")
    np.testing.assert_allclose(read_landmarks(path, spatial_dims=2).points, POINTS_2D)


def test_dictionary_over_a_decollated_batch(tmp_path):
    items = [
        {"image": image(f"/data/{n}.nii.gz"), "pred": POINTS_3D + n, "score": torch.tensor([0.1 * n, 0.0])}
        for n in (1, 2)
    ]
    save = SaveLandmarksd("pred", tmp_path, NAMES, refer_keys="image", confidence_keys="score", suffix="_pred")
    for item in decollate_batch(list_data_collate(items)):
        result = save(item)
        assert result.keys() == item.keys()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1_pred.mrk.json", "2_pred.mrk.json"]
    assert read_landmarks(tmp_path / "2_pred.mrk.json").points[0].tolist() == [3.25, -0.5, 5.75]


def test_case_key_and_two_keys_side_by_side(tmp_path):
    save = SaveLandmarksd(["a", "b"], tmp_path, NAMES, case_key="case", suffix=["_a", "_b"])
    save({"a": POINTS_2D, "b": POINTS_2D, "case": 7})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["7_a.mrk.json", "7_b.mrk.json"]
    with pytest.raises(ValueError, match="same files: give each a suffix"):
        SaveLandmarksd(["a", "b"], tmp_path, NAMES, case_key="case")
    with pytest.raises(ValueError, match=r"refer_keys .* or case_key"):
        SaveLandmarksd("a", tmp_path, NAMES)
    skip = SaveLandmarksd(
        ["a", "absent"], tmp_path, NAMES, case_key="case", suffix=["_c", "_d"], allow_missing_keys=True
    )
    skip({"a": POINTS_2D, "case": "8"})
    assert (tmp_path / "8_c.mrk.json").exists()


def test_two_images_never_share_a_file(tmp_path):
    save = SaveLandmarksd("p", tmp_path, NAMES, refer_keys="image")
    save({"p": POINTS_3D, "image": image("/data/p1/ct.nii.gz")})
    with pytest.raises(
        LandmarkError, match=r"two images would be saved as 'ct.mrk.json': '/data/p1/.*/data/p2/.*case_key"
    ):
        save({"p": POINTS_3D + 1, "image": image("/data/p2/ct.nii.gz")})
    np.testing.assert_allclose(read_landmarks(tmp_path / "ct.mrk.json").points, POINTS_3D)


def test_the_same_image_in_the_next_epoch_replaces_its_file(tmp_path):
    save = SaveLandmarksd("p", tmp_path, NAMES, refer_keys="image", case_key="case")
    for epoch in range(2):
        save({"p": POINTS_3D + epoch, "image": image("/data/p1/ct.nii.gz"), "case": "p1"})
    np.testing.assert_allclose(read_landmarks(tmp_path / "p1.mrk.json").points, POINTS_3D + 1)


def test_a_file_of_another_run_is_kept_unless_overwriting_is_allowed(tmp_path):
    (tmp_path / "p1.mrk.json").write_text("corrected by hand")
    with pytest.raises(FileExistsError, match=r"somebody's corrections.*overwrite=True"):
        SaveLandmarks(tmp_path, NAMES)(POINTS_3D, "p1")
    assert (tmp_path / "p1.mrk.json").read_text() == "corrected by hand"
    SaveLandmarks(tmp_path, NAMES, overwrite=True)(POINTS_3D, "p1")
    np.testing.assert_allclose(read_landmarks(tmp_path / "p1.mrk.json").points, POINTS_3D)


def test_errors(tmp_path):
    save = SaveLandmarks(tmp_path, NAMES)
    with pytest.raises(LandmarkError, match="3 points for 2 names"):
        save(torch.zeros(3, 2), "a")
    with pytest.raises(LandmarkError, match=r"shape \(N, D\)"):
        save(torch.zeros(1, 2, 2), "a")
    for case in ("../a", "a/b", "", "..", "a\\b"):
        with pytest.raises(LandmarkError, match="cannot name a file"):
            save(POINTS_2D, case)
    with pytest.raises(ValueError, match="ending with its dot"):
        SaveLandmarks(tmp_path, NAMES, format="json")
    with pytest.raises(ValueError, match="sequence of landmark names"):
        SaveLandmarks(tmp_path, "tip")
    with pytest.raises(ValueError, match="preview"):
        SaveLandmarks(tmp_path, NAMES, status="previewed")
    with pytest.raises(LandmarkError, match=r"does not know its file name.*case_key"):
        SaveLandmarksd("p", tmp_path, NAMES, refer_keys="image")({"p": POINTS_3D, "image": image(None)})
    with pytest.raises(LandmarkError, match="confidence_keys names 'score'"):
        SaveLandmarksd("p", tmp_path, NAMES, refer_keys="image", confidence_keys="score")(
            {"p": POINTS_3D, "image": image("a.nii")}
        )
    assert not list(tmp_path.iterdir()), "nothing half written"


NAMES_OF_FILES: list[tuple[Any, str]] = [
    ("/data/ct.nii.gz", "ct"),
    ("film.v2.PNG", "film.v2"),
    ("/data/1.2.840.113", "1.2.840.113"),
    ("scan.mha", "scan"),
    (["only.nii"], "only"),
]


@pytest.mark.parametrize(("file", "case"), NAMES_OF_FILES)
def test_case_of(file, case):
    assert case_of(image(file))[0] == case


# --- landmarks outside the image ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".mrk.json", ".fcsv", ".csv", ".tsv"])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_landmark_outside_the_image_keeps_its_place_and_is_said_to_be_outside(tmp_path, ending, dims):
    points = torch.tensor([[1.0] * dims, [9.0] * dims, [NAN] * dims])
    save = SaveLandmarksd("p", tmp_path, ["a", "b", "c"], refer_keys="image", format=ending, status="preview")
    save({"p": points, "image": image("/data/ct.nii.gz", dims)})
    back = read_landmarks(tmp_path / f"ct{ending}", spatial_dims=dims)
    assert back.status == ("preview", "outside", "missing")
    np.testing.assert_allclose(back.points, points)


def test_what_counts_is_the_file_of_the_image(tmp_path):
    """A film of 40 mm of which the network saw the first 4."""
    meta = {"filename_or_obj": "f.png", "spatial_shape": [40, 40], "original_affine": np.eye(3)}
    seen = MetaTensor(torch.zeros(1, 4, 4), affine=torch.eye(3), meta=meta)
    save = SaveLandmarksd("p", tmp_path, NAMES, refer_keys="image", format=".csv")
    save({"p": torch.tensor([[9.0, 9.0], [41.0, 0.0]]), "image": seen})
    assert read_landmarks(tmp_path / "f.csv").status == ("defined", "outside")


def test_the_state_in_the_item_rules_over_the_image(tmp_path):
    item = {"p": POINTS_2D, "image": image("a.png", 2), "case": "7", "state": torch.tensor([1, 0], dtype=torch.uint8)}
    save = SaveLandmarksd("p", tmp_path, NAMES, "image", state_keys="state", format=".csv")
    save(item)
    assert read_landmarks(tmp_path / "a.csv").status == ("outside", "missing")
    with pytest.raises(LandmarkError, match="disagree on which landmarks are missing"):
        save({**item, "state": torch.tensor([1, 1])})
    with pytest.raises(LandmarkError, match="state_keys names 'state'"):
        save({"p": POINTS_2D, "image": image("a.png", 2)})


def test_without_an_image_nobody_knows(tmp_path):
    far = POINTS_2D + 1000
    SaveLandmarksd("p", tmp_path, NAMES, case_key="case", format=".csv")({"p": far, "case": "7"})
    plain = SaveLandmarksd("p", tmp_path, NAMES, "image", case_key="case", format=".csv")
    plain({"p": far, "case": "8", "image": torch.zeros(1, 4, 4)})
    for case in "78":
        assert read_landmarks(tmp_path / f"{case}.csv").status == ("defined", "missing")


def test_millimetres_of_a_deformed_image_are_not_written(tmp_path):
    deformed = image("a.png", 2)
    mark_deformed(deformed, ["p"])
    with pytest.raises(LandmarkError, match="deformed elastically"):
        SaveLandmarksd("p", tmp_path, NAMES, "image")({"p": POINTS_2D, "image": deformed})
    assert not list(tmp_path.iterdir())

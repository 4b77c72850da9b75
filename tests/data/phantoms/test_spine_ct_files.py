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
"""The folder of spine CT phantoms: layout, truth on disk, reuse."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_landmarks.data import read_landmarks
from monai_landmarks.data.datasets.csi2014 import CSI2014_LANDMARKS, csi2014_datalist
from monai_landmarks.data.datasets.phantom_marker import is_phantom
from monai_landmarks.data.phantoms.spine import SPINE_LANDMARKS
from monai_landmarks.data.phantoms.spine_ct import ORIENTATIONS, spine_ct_phantom, write_spine_ct_phantom

SPACING = (7.0, 7.0, 8.0)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory) -> Path:
    return write_spine_ct_phantom(tmp_path_factory.mktemp("spine") / "set", 6, 2, seed=3, spacing=SPACING)


def scans(root: Path) -> dict[str, Path]:
    return {path.name[:3]: path for path in sorted(root.rglob("*.nii.gz"))}


def test_layout(phantom):
    cases = scans(phantom)
    assert [path.relative_to(phantom).as_posix() for path in cases.values()] == [
        *(f"spine-1/phantom/{n:03d}/{n:03d}.nii.gz" for n in range(1, 7)),
        *(f"spine-test-data/{n}.nii.gz" for n in (501, 502)),
    ]
    assert is_phantom(phantom)
    assert "not CTs of patients" in " ".join((phantom / "PHANTOM.txt").read_text().split())
    assert not list(phantom.rglob(".*")), "no temporary file is left"


def test_names_are_the_data_sets():
    assert SPINE_LANDMARKS == CSI2014_LANDMARKS


def test_headers_say_the_orientation_and_spacing(phantom):
    codes = set()
    for case, path in scans(phantom).items():
        image = nib.load(path)
        assert image.get_data_dtype() == np.int16
        assert image.get_qform(coded=True)[1] == image.get_sform(coded=True)[1] == 1
        np.testing.assert_allclose(image.get_qform(), image.affine, atol=1e-3)
        orientation, oblique = ORIENTATIONS[int(case) % len(ORIENTATIONS)]
        assert "".join(nib.aff2axcodes(image.affine)) == orientation
        axis_aligned = (np.abs(image.affine[:3, :3]) > 1e-4).sum() == 3
        assert axis_aligned == (not any(oblique))
        assert (np.abs(np.array(image.header.get_zooms()) / SPACING - 1) <= 0.16).all()
        codes.add((orientation, any(oblique)))
    assert len(codes) == 5


def test_points_on_disk_are_those_drawn(phantom):
    for case, path in scans(phantom).items():
        image = nib.load(path)
        read = read_landmarks(path.with_name(f"{case}.lml"), affine=image.affine)
        rng = np.random.default_rng([3, int(case)])
        spacing = np.array(SPACING) * np.repeat(rng.uniform(0.87, 1.15, 2), (2, 1))
        rng.random()
        orientation, oblique = ORIENTATIONS[int(case) % 5]
        volume, affine, points = spine_ct_phantom(rng, spacing, False, orientation, oblique)
        seen = np.isfinite(points).all(axis=1)
        assert read.names == tuple(np.array(SPINE_LANDMARKS)[seen])
        np.testing.assert_allclose(read.points, points[seen], atol=1e-3)
        np.testing.assert_array_equal(np.asarray(image.dataobj), volume)
        np.testing.assert_allclose(image.affine, affine, atol=1e-4)


def test_vertebrae_not_in_the_scan_are_not_listed(phantom):
    lists = [path.read_text() for path in phantom.rglob("*.lml")]
    assert all("nan" not in text for text in lists)
    assert min(len(text.splitlines()) for text in lists) < 27


def test_the_data_sets_reader_reads_it(phantom):
    train, test = csi2014_datalist(phantom), csi2014_datalist(phantom, section="set2_test")
    assert [len(train), len(test)] == [6, 2]
    for entry in [*train, *test]:
        points = np.asarray(entry["landmarks"])
        assert points.shape == (26, 3)
        assert np.isfinite(points).all(axis=1).sum() >= 2


def test_complete_folder_is_used_again(phantom):
    before = {path: path.stat().st_mtime_ns for path in phantom.rglob("*")}
    assert write_spine_ct_phantom(phantom, 6, 2, seed=3, spacing=SPACING) == phantom
    assert before == {path: path.stat().st_mtime_ns for path in phantom.rglob("*")}


@pytest.mark.parametrize("change", [{"seed": 4}, {"num_training": 5}, {"spacing": (8.0, 8.0, 8.0)}, {"full": True}])
def test_other_parameters_are_refused(phantom, change):
    with pytest.raises(
        ValueError, match=f"another phantom: .*{'cases' if 'num_training' in change else next(iter(change))}"
    ):
        write_spine_ct_phantom(phantom, **{"num_training": 6, "num_test": 2, "seed": 3, "spacing": SPACING, **change})


def test_interrupted_writing_is_completed_and_the_number_alone_decides(phantom, tmp_path):
    options = {"seed": 3, "spacing": SPACING}
    root = write_spine_ct_phantom(tmp_path / "set", 2, 1, **options)
    (root / "PHANTOM.json").unlink()
    kept = root / "spine-1" / "phantom" / "001" / "001.nii.gz"
    stamp = kept.stat().st_mtime_ns
    (root / "spine-1" / "phantom" / "002" / "002.lml").unlink()
    write_spine_ct_phantom(root, 2, 1, **options)
    assert kept.stat().st_mtime_ns == stamp
    assert json.loads((root / "PHANTOM.json").read_text())["cases"]["training"] == ["001", "002"]
    for case, path in scans(root).items():
        other = scans(phantom)[case]
        np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), np.asarray(nib.load(other).dataobj))
        assert path.with_name(f"{case}.lml").read_text() == other.with_name(f"{case}.lml").read_text()


def test_foreign_folder_is_not_touched(tmp_path):
    (tmp_path / "scan.nii.gz").write_bytes(b"real")
    with pytest.raises(ValueError, match="may be real data"):
        write_spine_ct_phantom(tmp_path, 1, 0, spacing=SPACING)
    assert [path.name for path in tmp_path.iterdir()] == ["scan.nii.gz"]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "set").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        write_spine_ct_phantom(tmp_path / "set", 1, 0, spacing=SPACING)


@pytest.mark.parametrize("numbers", [(0, 0), (-1, 1), (501, 0), (1, 500)])
def test_numbers_out_of_range(tmp_path, numbers):
    with pytest.raises(ValueError, match="num_t"):
        write_spine_ct_phantom(tmp_path / "set", *numbers)


def test_anomalies_are_written_on_demand(tmp_path):
    root = write_spine_ct_phantom(tmp_path / "set", 8, 0, seed=1, spacing=(12, 12, 12), full=True, anomalies=1.0)
    counts = {len(path.read_text().splitlines()) - 1 for path in root.rglob("*.lml")}
    assert counts == {25, 26}

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
"""Reader of CSI 2014: world coordinates, labels, folds by patient, bad annotations."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_landmarks.data.datasets.csi2014 import CSI2014_LANDMARKS, CSI2014_VERSE_LABELS, csi2014_datalist
from monai_landmarks.data.datasets.vertebrae import vertebra_gaps, vertebra_name
from monai_landmarks.data.formats.verse import VERTEBRA_NAMES
from monai_landmarks.geometry import LandmarkError

SHAPE = (6, 7, 30)
LAS = np.array([[-2.0, 0, 0, 90], [0, 2.0, 0, -40], [0, 0, 3.0, -500], [0, 0, 0, 1]])
# Columns of lengths 2, 3 and 4 along turned axes.
TURNED = np.array([[0, 0, 4.0, 100], [-2, 0, 0, 50], [0, 3, 0, -7], [0, 0, 0, 1]])
ROWS = (("T12_center", 2, 4, 60), ("L1_center", 4, 6, 30.5), ("L2_center", 6, 8, 3))


def lml(rows: Sequence[tuple] = ROWS) -> str:
    lines = ["# id\tlabel\tx\ty\tz", *("\t".join(map(str, (n, *row))) for n, row in enumerate(rows, start=1))]
    return "\n".join(lines) + "\n"


def write_scan(folder: Path, case: str, text: str | None = None, affine: np.ndarray = LAS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{case}.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), affine), path)
    if text != "":
        (folder / f"{case}.lml").write_text(text or lml())
    return path


def write_set(root: Path, num_patients: int = 8, num_test: int = 2) -> Path:
    """Every other patient has two scans."""
    for number in range(num_patients):
        for scan in range(1 + number % 2):
            case = f"{1000 + 10 * number + scan}"
            write_scan(root / f"spine-{1 + number % 5}" / f"patient{number:04d}" / case, case)
    for number in range(num_test):
        write_scan(root / "spine-test-data", f"{9000 + number}")
    return root


def read(root: Path, **options):
    return csi2014_datalist(root, **{"allow_incomplete": True, **options})


def cases(root: Path, **options) -> list[str]:
    return [entry["case"] for entry in read(root, **options)]


@pytest.mark.parametrize("affine", [LAS, TURNED], ids=["LAS", "turned"])
def test_points_are_world_mm_through_the_images_affine(tmp_path, affine):
    write_scan(tmp_path / "spine-1" / "p" / "1", "1", affine=affine)
    (entry,) = read(tmp_path)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    expected = np.full((26, 3), np.nan)
    for name, *mm in ROWS:
        place = CSI2014_LANDMARKS.index(name.removesuffix("_center"))
        expected[place] = nib.affines.apply_affine(affine, np.array(mm) / sizes)
    np.testing.assert_allclose(entry["landmarks"], expected)
    assert entry["landmarks"].dtype == np.float64
    assert Path(entry["image"]).name == "1.nii.gz"


def test_names_and_numbers_of_the_vertebrae():
    assert len(CSI2014_LANDMARKS) == 26
    assert CSI2014_LANDMARKS[::5] == ("C1", "C6", "T4", "T9", "L2", "S2")
    assert tuple(CSI2014_VERSE_LABELS.values()) == CSI2014_LANDMARKS
    assert all(VERTEBRA_NAMES[n] == name for n, name in CSI2014_VERSE_LABELS.items() if n < 26)
    variants = ["l3", "L03", " L3_center ", "Lumbar 3", "TH12", "d1", "sacral_1", "T13", "T14", "C8", "L3x", "disc L3"]
    known = ["L3", "L3", "L3", "L3", "T12", "T1", "S1", "T13", "T14", "C8", "L3x", "disc L3"]
    assert [vertebra_name(text) for text in variants] == known


def test_gaps_end_at_the_first_and_last_label_and_t13_is_none():
    points = np.full((5, 3), np.nan)
    points[[1, 4]] = 0.0
    assert vertebra_gaps(points, ["T11", "T12", "L1", "T13", "L2"]) == ("L1",)
    assert vertebra_gaps(points * np.nan, ["T11", "T12", "L1", "T13", "L2"]) == ()


def test_labels_with_a_gap_are_kept_and_logged(tmp_path, caplog):
    write_scan(tmp_path / "spine-1" / "p" / "1", "1", lml([ROWS[0], ROWS[2]]))
    write_scan(tmp_path / "spine-1" / "q" / "2", "2")
    with caplog.at_level(logging.WARNING):
        entry, _ = read(tmp_path)
    assert np.isfinite(entry["landmarks"][[18, 20]]).all()
    assert np.isnan(entry["landmarks"][19]).all()
    assert "gap in 1 of 2 scans: 1 lacks L1." in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lml([*ROWS, ("l2", 6, 8, 9)]), r"1\.lml.*lines 4 and 5 both give 'L2'"),
        (lml([*ROWS, ("S3_center", 6, 8, 9)]), r"none of the 26 wanted: S3 in .*1\.lml.*ignore_names"),
        (lml([*ROWS, ("L 9", 6, 8, 9)]), "none of the 26 wanted: L 9 in"),
        (lml([(name, x, y, z + 200) for name, x, y, z in ROWS]), "3 of 3 vertebrae lie outside the volume"),
        (lml([("L1", 2, 2, "1,5")]), "line 2, z holds '1,5'"),
        ("# id\n", "holds no points"),
    ],
)
def test_bad_annotations_name_the_file(tmp_path, text, message):
    write_scan(tmp_path / "spine-1" / "p" / "1", "1", text)
    with pytest.raises(LandmarkError, match=message):
        read(tmp_path)


def test_further_vertebrae_are_left_out_on_request(tmp_path):
    write_scan(tmp_path / "spine-1" / "p" / "1", "1", lml([*ROWS, ("S3_center", 6, 8, 9)]))
    (entry,) = read(tmp_path, ignore_names=["s3"])
    assert np.isfinite(entry["landmarks"]).all(axis=1).sum() == 3


def test_folds_are_disjoint_complete_and_by_patient(tmp_path):
    root = write_set(tmp_path)
    every = cases(root)
    assert len(every) == 12
    assert cases(root, section="set2_train") == every
    assert cases(root, section="set2_test") == ["9000", "9001"]
    tests = [cases(root, fold=fold, part="test") for fold in (0, 1)]
    assert sorted(tests[0] + tests[1]) == every
    assert abs(len(tests[0]) - len(tests[1])) <= 1
    for fold in (0, 1):
        parts = [cases(root, fold=fold, part=part, num_validation=2) for part in ("train", "validation", "test")]
        assert sorted(parts[0] + parts[1] + parts[2]) == every
        assert sorted(parts[0] + parts[1]) == cases(root, fold=fold)
        patients = [{case[:3] for case in part} for part in parts]
        assert all(not a & b for i, a in enumerate(patients) for b in patients[:i])
        assert len(parts[1]) >= 2
    assert cases(root, fold=0, part="test", seed=5) != tests[0]


def test_lists_of_published_folds_and_their_table(tmp_path):
    """Scans in images/ without .lml: the table holds the same numbers."""
    for case in "1234":
        write_scan(tmp_path / "images", case, "", TURNED)
    setup = tmp_path / "setup"
    for name, listed in {"cv/0/train": "12", "cv/0/val": "3", "cv/1/train": "3", "cv/1/val": "12"}.items():
        (setup / name).parent.mkdir(parents=True, exist_ok=True)
        (setup / f"{name}.txt").write_text("\n".join(listed) + "\n")
    (setup / "train_all.txt").write_text("1\n2\n3\n")
    (setup / "cv" / "test_all.txt").write_text("4\n")
    numbers = {name.removesuffix("_center"): mm for name, *mm in ROWS}
    cells = [str(value) for name in CSI2014_LANDMARKS for value in numbers.get(name, ["NaN"] * 3)]
    (setup / "points_world_coordinates.csv").write_text("".join(",".join([c, *cells]) + "\n" for c in "1234"))
    assert cases(tmp_path, setup_dir=setup) == ["1", "2", "3"]
    assert cases(tmp_path, setup_dir=setup, fold=0) == ["1", "2"]
    assert cases(tmp_path, setup_dir=setup, fold=0, part="test") == ["3"]
    assert cases(tmp_path, setup_dir=setup, fold=1, part="test") == ["1", "2"]
    assert cases(tmp_path, setup_dir=setup, fold=0, part="train", num_validation=1) in (["1"], ["2"])
    assert cases(tmp_path, setup_dir=setup, section="set2_train") == ["1", "2", "3"]
    (tabled,) = read(tmp_path, setup_dir=setup, section="set2_test")
    write_scan(tmp_path / "images", "4", lml(), TURNED)
    (marked,) = read(tmp_path, setup_dir=setup, section="set2_test")
    np.testing.assert_allclose(tabled["landmarks"], marked["landmarks"])
    assert np.isfinite(tabled["landmarks"]).all(axis=1).sum() == 3
    (setup / "train_all.txt").write_text("1\n77\n")
    with pytest.raises(FileNotFoundError, match=r"1 of 2 scans listed in .*: '77'.*allow_incomplete"):
        csi2014_datalist(tmp_path, "set2_train", setup_dir=setup)
    assert cases(tmp_path, setup_dir=setup, section="set2_train") == ["1"]
    with pytest.raises(FileNotFoundError, match=r"in images/ need setup_dir"):
        read(tmp_path)


def test_an_incomplete_set_is_refused_and_a_phantom_has_any_number(tmp_path):
    root = tmp_path / "set"
    for number in range(4):
        write_scan(root / "spine-1" / "phantom" / f"{number:03d}", f"{number:03d}")
    with pytest.raises(FileNotFoundError, match=r"holds 4 of the 242 training scans.*allow_incomplete=True"):
        csi2014_datalist(root)
    (root / "PHANTOM.txt").write_text("phantom")
    with pytest.raises(FileNotFoundError, match="writing was interrupted"):
        csi2014_datalist(root)
    (root / "PHANTOM.json").write_text(json.dumps({"kind": "spine_ct"}))
    parts = [csi2014_datalist(root, fold=0, part=part, num_validation=1) for part in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [1, 1, 2], "each phantom is a patient of its own"
    with pytest.raises(FileNotFoundError, match="has no test scans"):
        csi2014_datalist(root, "set2_test")
    (root / "PHANTOM.json").write_text(json.dumps({"cases": {"training": ["000", "004", "005"]}}))
    with pytest.raises(FileNotFoundError, match=r"lacks its training scans '004', '005'\. Write it again"):
        csi2014_datalist(root)
    assert len(cases(root)) == 4


def test_missing_and_doubled_files(tmp_path):
    write_scan(tmp_path / "spine-1" / "p" / "1", "1", "")
    with pytest.raises(FileNotFoundError, match=r"1 scans have neither an \.lml file nor a row in .*: '1'"):
        read(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"setup_dir .* does not exist"):
        read(tmp_path, setup_dir=tmp_path / "no")
    write_scan(tmp_path / "spine-2" / "p" / "1", "1")
    with pytest.raises(LandmarkError, match=r"scan 1 lies twice .*spine-1.*spine-2"):
        read(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist; expected spine-1"):
        read(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no scans"):
        read(tmp_path / "spine-1")


def test_a_scan_cut_off_while_it_was_copied(tmp_path):
    path = write_scan(tmp_path / "spine-1" / "p" / "1", "1")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(LandmarkError, match=r"1\.nii\.gz is no readable volume .*cut off"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"section": "set3"}, "set3"),
        ({"fold": 2}, "fold must be 0 or 1"),
        ({"section": "set2_train", "fold": 0}, "only 'set1' has folds"),
        ({"part": "test"}, "give fold=0 or 1"),
        ({"section": "set2_test", "part": "train"}, "scored whole"),
        ({"part": "fit"}, "fit"),
        ({"part": "train", "num_validation": 12}, "leave both parts non-empty"),
    ],
)
def test_options_out_of_range(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        read(write_set(tmp_path), **options)

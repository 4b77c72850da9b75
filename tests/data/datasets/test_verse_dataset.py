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
"""Reader of VerSe: layouts, subjects, orientation conventions against nibabel, bad centroid files."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from monai_landmarks.data import read_landmarks
from monai_landmarks.data.datasets.verse import VERSE_LANDMARKS, verse_datalist
from monai_landmarks.geometry import LandmarkError

SHAPE = (12, 10, 30)
LAS = np.array([[-2.0, 0, 0, 90], [0, 2.0, 0, -40], [0, 0, 3.0, -500], [0, 0, 0, 1]])
OBLIQUE = np.array([[0.1, -1.5, 0.0, 140.0], [0.9, 0.1, 0.1, -20.0], [0.0, 0.1, 2.0, 300.0], [0.0, 0.0, 0.0, 1.0]])
POINTS = {19: (2.0, 3.0, 20.5), 20: (4.0, 5.0, 14.0), 28: (3.0, 4.0, 17.0)}


def turned(affine: np.ndarray, codes: str) -> np.ndarray:
    """The affine of the image as nibabel turns it toward other axes."""
    image = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), affine)
    orientation = nib.orientations
    turn = orientation.ornt_transform(orientation.io_orientation(affine), orientation.axcodes2ornt(tuple(codes)))
    return image.as_reoriented(turn).affine


def ctd(world: dict[int, np.ndarray], affine: np.ndarray, codes: str, stated: bool = True) -> str:
    frame = np.linalg.inv(affine)
    entries: list[dict[str, Any]] = [{"direction": list(codes)}] if stated else []
    for label, point in world.items():
        x, y, z = nib.affines.apply_affine(frame, point).tolist()
        entries.append({"label": label, "X": x, "Y": y, "Z": z})
    return json.dumps(entries)


def write_image(path: Path, affine: np.ndarray = LAS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), affine), path)


def write_scan(archive: Path, name: str, text: str | None = None, affine: np.ndarray = LAS) -> None:
    """In the layout by subject; by default with the centroids in the image's own orientation."""
    subject = name.split("_")[0]
    write_image(archive / "rawdata" / subject / f"{name}_ct.nii.gz", affine)
    folder = archive / "derivatives" / subject
    folder.mkdir(parents=True, exist_ok=True)
    write_image(folder / f"{name}_seg-vert_msk.nii.gz", affine)
    own = "".join(nib.aff2axcodes(affine))
    world = {label: nib.affines.apply_affine(affine, point) for label, point in POINTS.items()}
    (folder / f"{name}_seg-subreg_ctd.json").write_text(ctd(world, affine, own) if text is None else text)


def expected(affine: np.ndarray) -> np.ndarray:
    points = np.full((26, 3), np.nan)
    for name, label in (("T12", 19), ("L1", 20), ("T13", 28)):
        points[VERSE_LANDMARKS.index(name)] = nib.affines.apply_affine(affine, POINTS[label])
    return points


@pytest.mark.parametrize("codes", ["LAS", "PIR", "RSA"])
@pytest.mark.parametrize("affine", [LAS, OBLIQUE], ids=["LAS", "oblique"])
def test_world_points_whatever_the_orientation_of_file_and_image(tmp_path, affine, codes):
    world = {label: nib.affines.apply_affine(affine, point) for label, point in POINTS.items()}
    root = tmp_path / "dataset-verse19training"
    write_scan(root, "sub-verse004", ctd(world, turned(affine, codes), codes), affine)
    (entry,) = verse_datalist(root)
    np.testing.assert_allclose(entry["landmarks"], expected(affine), atol=1e-9)
    assert (entry["case"], entry["subject"]) == ("sub-verse004", "sub-verse004")
    assert Path(entry["image"]).name == "sub-verse004_ct.nii.gz"
    assert (*(f"C{n}" for n in range(1, 8)), *(f"T{n}" for n in range(1, 13)),
                               *(f"L{n}" for n in range(1, 7)), "T13") == VERSE_LANDMARKS  # fmt: skip


@pytest.mark.parametrize(("year", "codes"), [("2019", "IPL"), ("2020", "PIR")])
@pytest.mark.parametrize("affine", [LAS, OBLIQUE, np.eye(4)], ids=["LAS", "oblique", "1mm"])
def test_first_releases_count_voxels_of_the_volume_resampled_to_1_mm(tmp_path, affine, year, codes):
    """The 1 mm grid has the volume's centre and a rounded number of voxels."""
    turn = turned(affine, codes)
    order = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt(tuple(codes)), nib.orientations.io_orientation(affine)
    )[:, 0].astype(int)
    shape = np.array(SHAPE)[order]
    new_shape = np.rint(shape * nib.affines.voxel_sizes(turn)).astype(int)
    linear = turn[:3, :3] / nib.affines.voxel_sizes(turn)
    centre = nib.affines.apply_affine(turn, (shape - 1) / 2)
    grid = nib.affines.from_matvec(linear, centre - linear @ ((new_shape - 1) / 2))
    world = {label: nib.affines.apply_affine(affine, point) for label, point in POINTS.items()}
    folder = tmp_path / "training"
    write_image(folder / "verse004.nii.gz", affine)
    write_image(folder / "verse004_seg.nii.gz", affine)
    (folder / "verse004_ctd.json").write_text(ctd(world, grid, codes, stated=False))
    (entry,) = verse_datalist(folder, convention=year)
    np.testing.assert_allclose(entry["landmarks"], expected(affine), atol=1e-9)
    # nibabel, with which the data set's own helper resamples, keeps a whole voxel instead of the centre.
    theirs = nib.affines.rescale_affine(turn, shape, (1, 1, 1), new_shape)
    half_voxel = np.linalg.norm(nib.affines.voxel_sizes(turn)) / 2
    assert np.linalg.norm(theirs[:3, 3] - grid[:3, 3]) <= half_voxel + 1e-9
    with pytest.raises(LandmarkError, match=r"verse004_ctd\.json.*states no 'direction'.*convention='2019'"):
        verse_datalist(folder)


def test_first_releases_against_the_published_formulas(tmp_path):
    """Payer's script works in ITK's RAI, which at 1 mm is one voxel off along turned axes and exact along the others."""
    file = tmp_path / "verse004_ctd.json"
    file.write_text(json.dumps([{"label": 20, "X": 3.0, "Y": 4.0, "Z": 5.0}]))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0])  # nibabel's word for ITK's RAI; the script's mm are LPS from the first voxel
    for year, mm in {"2019": (5.0, 4.0, 30 - 3.0), "2020": (12 - 5.0, 3.0, 30 - 4.0)}.items():
        marks = read_landmarks(file, affine=lps, spatial_shape=SHAPE, convention=year)
        flipped = np.array([year == "2020", False, True])
        np.testing.assert_allclose(marks.points[0] * [-1, -1, 1], np.array(mm) - flipped)


def test_conventions_are_checked(tmp_path):
    file = tmp_path / "a_ctd.json"
    file.write_text(json.dumps([{"label": 20, "X": 3.0, "Y": 4.0, "Z": 5.0}]))
    with pytest.raises(LandmarkError, match="convention='2021'; possible are '2019', '2020'"):
        read_landmarks(file, affine=LAS, spatial_shape=SHAPE, convention="2021")
    with pytest.raises(LandmarkError, match=r"1 mm voxels: give affine=.* and spatial_shape"):
        read_landmarks(file, affine=LAS, convention=2019)
    with pytest.raises(LandmarkError, match="not both"):
        read_landmarks(file, affine=LAS, convention=2019, direction="PIR")


def test_files_of_the_challenge_2020(tmp_path):
    folder = tmp_path / "02_validation" / "GL017"
    write_image(folder / "GL017_CT_ax.nii.gz", np.eye(4))
    write_image(folder / "GL017_CT_ax_seg.nii.gz", np.eye(4))
    world = {20: np.array([4.0, 5.0, 14.0])}
    (folder / "GL017_CT_ax_iso-ctd.json").write_text(ctd(world, turned(np.eye(4), "PIR"), "PIR", stated=False))
    (entry,) = verse_datalist(tmp_path, section="validation", convention=2020)
    np.testing.assert_allclose(entry["landmarks"][19], [4.0, 5.0, 14.0], atol=1e-9)
    assert (entry["case"], entry["subject"]) == ("GL017_CT_ax", "GL017")


def write_archives(root: Path) -> Path:
    for number in range(9):
        write_scan(root / "dataset-verse20training", f"sub-verse{500 + number}_dir-ax")
    for split in (253, 254):
        write_scan(root / "dataset-verse20training", f"sub-verse401_split-verse{split}")
    write_scan(root / "dataset-verse20test", "sub-gl003_dir-sag")
    return root


def cases(root: Path, **options) -> list[str]:
    return [entry["case"] for entry in verse_datalist(root, **options)]


def test_sections_folds_and_parts_keep_subjects_together(tmp_path):
    root = write_archives(tmp_path / "verse")
    every = cases(root)
    assert len(every) == 11
    assert cases(root, section="test", year=2020) == ["sub-gl003_dir-sag"]
    assert len(cases(root, section=None)) == 12
    folds = [cases(root, fold=fold, part="validation") for fold in range(3)]
    assert sorted(folds[0] + folds[1] + folds[2]) == every
    for fold, validation in enumerate(folds):
        assert sorted(validation + cases(root, fold=fold, part="train")) == every
        assert sum("verse401" in case for case in validation) in (0, 2)
    train, validation = (cases(root, part=part, num_validation=3) for part in ("train", "validation"))
    assert sorted(train + validation) == every
    assert len(validation) in (3, 4)
    with pytest.raises(FileNotFoundError, match="nothing of VerSe 2019 training; it has '2020 test', '2020 training'"):
        cases(root, year=2019)
    with pytest.raises(FileNotFoundError, match=r"nothing of VerSe .*validation"):
        cases(root, section="validation")


def test_two_years_share_scans_so_one_is_chosen(tmp_path):
    root = write_archives(tmp_path / "verse")
    write_scan(root / "dataset-verse19training", "sub-verse401_split-verse253")
    with pytest.raises(ValueError, match="2019 and 2020, which are in part the same: give year"):
        cases(root)
    assert cases(root, year=2019) == ["sub-verse401_split-verse253"]
    assert len(cases(root, year=2020)) == 11
    write_scan(root / "again" / "dataset-verse19training", "sub-verse401_split-verse253")
    with pytest.raises(LandmarkError, match="lies twice"):
        cases(root, year=2019)


def entry(label: Any, x: float = 2.0) -> dict[str, Any]:
    return {"label": label, "X": x, "Y": 3.0, "Z": 5.0}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([entry(20), entry(21), entry(20)], r"ctd\.json.*entries 1 and 3 both have label 20 \(L1\)"),
        ([entry(29)], r"sub-verse004_seg-subreg_ctd\.json.*label 29; known are 1 to 28"),
        ([entry(0)], "label 0; known are 1 to 28"),
        ([entry(19.5)], "a whole number is expected"),
        ([entry(26)], "none of the 26 wanted: sacrum in .*ignore_names"),
        ([entry(20, 200.0), entry(21, 201.0)], "2 of 2 vertebrae lie outside the volume"),
        ([], "holds no centroids"),
    ],
)
def test_bad_centroid_files_are_named(tmp_path, entries, message):
    write_scan(tmp_path / "training", "sub-verse004", json.dumps([{"direction": list("LAS")}, *entries]))
    with pytest.raises(LandmarkError, match=message):
        verse_datalist(tmp_path / "training")


def test_a_gap_is_logged_and_the_sacrum_ignored_on_request(tmp_path, caplog):
    text = json.dumps([{"direction": list("LAS")}, entry(19), entry(21), entry(26)])
    write_scan(tmp_path / "training", "sub-verse004", text)
    with caplog.at_level(logging.WARNING):
        (found,) = verse_datalist(tmp_path / "training", ignore_names=["sacrum"])
    assert np.isfinite(found["landmarks"]).all(axis=1).sum() == 2
    assert "gap in 1 of 1 scans: sub-verse004 lacks L1." in caplog.text
    (found,) = verse_datalist(tmp_path / "training", names=["sacrum", "L2", "T12"])
    assert np.isfinite(found["landmarks"]).all()


def test_missing_files_are_named(tmp_path):
    root = tmp_path / "training"
    write_scan(root, "sub-verse004")
    (annotation,) = root.rglob("*ctd.json")
    text = annotation.read_text()
    annotation.unlink()
    with pytest.raises(FileNotFoundError, match="nothing of VerSe"):
        verse_datalist(root)
    annotation.with_name("sub-verse005_seg-subreg_ctd.json").write_text(text)
    with pytest.raises(FileNotFoundError, match=r"1 scans in .* have no centroid file: 'sub-verse004'"):
        verse_datalist(root)
    annotation.write_text(text)
    with pytest.raises(FileNotFoundError, match=r"1 centroid files in .* have no image: .*sub-verse005"):
        verse_datalist(root)
    with pytest.raises(FileNotFoundError, match="does not exist; expected dataset-verse19training"):
        verse_datalist(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"year": 2021}, "2021"),
        ({"section": "train"}, "train"),
        ({"part": "test"}, "test"),
        ({"section": "test", "part": "train"}, "only the training section is split"),
        ({"fold": 0}, "give part='train' or part='validation'"),
        ({"fold": 3, "part": "train"}, "fold must be 0 to 2"),
        ({"part": "train", "num_validation": 0}, "leave both parts non-empty"),
    ],
)
def test_options_out_of_range(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        verse_datalist(write_archives(tmp_path / "verse"), **options)

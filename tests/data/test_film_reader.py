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
"""FilmReader: pixels against what was written, geometry against SimpleITK and the tags, and every refusal."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage, LoadImaged
from PIL import Image

from monai_landmarks.data.film_reader import FilmReader
from monai_landmarks.geometry import LandmarkError

ROWS, COLUMNS = 7, 5


def grey(dtype: Any, top: int) -> np.ndarray:
    """A (rows, columns) picture with different values everywhere, from 0 to ``top``."""
    return np.linspace(0, top, ROWS * COLUMNS).round().astype(dtype).reshape(ROWS, COLUMNS)


def load(path: Path, **options: Any) -> tuple[np.ndarray, dict]:
    reader = FilmReader(**{"pixel_size": 1.0, **options})
    return reader.get_data(reader.read(path))


PIXELS = [
    ("f.png", np.uint8, 255),
    ("f.bmp", np.uint8, 255),
    ("f.tif", np.uint8, 255),
    ("f.png", np.uint16, 65535),
    ("f.tiff", np.uint16, 65535),
    ("f.tif", np.int32, 100000),
    ("f.tif", np.float32, 7),
]


@pytest.mark.parametrize(("name", "dtype", "top"), PIXELS)
def test_pixels_and_shape_are_the_files_own(tmp_path, name, dtype, top):
    picture = grey(dtype, top)
    Image.fromarray(picture).save(tmp_path / name)
    array, meta = load(tmp_path / name)
    assert array.shape == (COLUMNS, ROWS)
    assert array.dtype == dtype
    np.testing.assert_array_equal(array, picture.T)
    np.testing.assert_array_equal(meta["spatial_shape"], (COLUMNS, ROWS))
    assert np.isnan(meta["original_channel_dim"])
    assert "space" not in meta


def test_jpeg_is_read(tmp_path):
    Image.fromarray(np.full((ROWS, COLUMNS), 77, np.uint8)).save(tmp_path / "f.jpg", quality=95)
    np.testing.assert_array_equal(load(tmp_path / "f.jpg")[0], np.full((COLUMNS, ROWS), 77))


def test_one_bit_becomes_0_and_255(tmp_path):
    picture = grey(np.uint8, 255) > 128
    Image.fromarray(picture).save(tmp_path / "f.png")
    np.testing.assert_array_equal(load(tmp_path / "f.png")[0], picture.T * np.uint8(255))


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_colour_with_equal_channels_is_grey(tmp_path, suffix):
    picture = grey(np.uint8, 255)
    Image.fromarray(np.stack([picture] * 3, axis=-1)).save(tmp_path / f"f.{suffix}")
    np.testing.assert_array_equal(load(tmp_path / f"f.{suffix}")[0], picture.T)


def test_palette_and_opaque_transparency_are_grey(tmp_path):
    picture = grey(np.uint8, 255)
    Image.fromarray(picture).convert("P").save(tmp_path / "p.png")
    Image.fromarray(np.stack([picture] * 3 + [np.full_like(picture, 255)], axis=-1)).save(tmp_path / "a.png")
    for name in ("p.png", "a.png"):
        np.testing.assert_array_equal(load(tmp_path / name)[0], picture.T)


def test_colour_needs_a_choice(tmp_path):
    picture = np.stack([grey(np.uint8, 255), grey(np.uint8, 100), grey(np.uint8, 50)], axis=-1)
    Image.fromarray(picture).save(tmp_path / "f.png")
    with pytest.raises(LandmarkError, match=r"channels differ by up to 205 of 255.*colour='luminance'"):
        load(tmp_path / "f.png")
    luminance, meta = load(tmp_path / "f.png", colour="luminance")
    expected = (picture @ np.array([0.299, 0.587, 0.114])).T
    assert np.abs(luminance - expected).max() <= 0.51
    assert np.isnan(meta["original_channel_dim"])
    kept, meta = load(tmp_path / "f.png", colour="keep")
    np.testing.assert_array_equal(kept, picture.swapaxes(0, 1))
    assert meta["original_channel_dim"] == -1
    loaded = LoadImage(reader=FilmReader(pixel_size=1, colour="keep"), ensure_channel_first=True)(tmp_path / "f.png")
    assert loaded.shape == (3, COLUMNS, ROWS)


def test_transparent_pixels_are_refused(tmp_path):
    picture = np.zeros((ROWS, COLUMNS, 4), np.uint8)
    Image.fromarray(picture).save(tmp_path / "f.png")
    with pytest.raises(LandmarkError, match=r"transparent pixels.*flatten"):
        load(tmp_path / "f.png")


def test_16_bit_colour_is_refused_and_not_cut_to_8(tmp_path):
    picture = sitk.GetImageFromArray(np.full((ROWS, COLUMNS, 3), 4660, np.uint16), isVector=True)
    sitk.WriteImage(picture, str(tmp_path / "f.png"))
    with pytest.raises(LandmarkError, match=r"16 bits.*16-bit grey"):
        load(tmp_path / "f.png")


def minimal_tiff(stored: np.ndarray, photometric: int, order: str) -> bytes:
    """The bytes of an uncompressed one-strip TIFF, written from the TIFF 6.0 specification."""
    raw = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    rows, columns = stored.shape
    fields = [
        (256, columns),
        (257, rows),
        (258, 8 * stored.itemsize),
        (259, 1),
        (262, photometric),
        (273, 8),
        (277, 1),
        (278, rows),
        (279, len(raw)),
    ]
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(raw))
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in fields)
    return head + raw + struct.pack(f"{order}H", len(fields)) + entries + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("photometric", [0, 1])
def test_tiff_byte_order_and_polarity(tmp_path, dtype, photometric, order):
    top = np.iinfo(dtype).max
    stored = grey(dtype, top)
    (tmp_path / "f.tif").write_bytes(minimal_tiff(stored, photometric, order))
    try:
        Image.open(tmp_path / "f.tif")
    except OSError:
        with pytest.raises(LandmarkError, match=r"cannot|header"):
            load(tmp_path / "f.tif")
        return
    expected = top - stored if photometric == 0 else stored
    array, _ = load(tmp_path / "f.tif")
    assert array.dtype == dtype
    assert array.dtype.isnative
    np.testing.assert_array_equal(array, expected.T)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_geometry_agrees_with_simpleitk(tmp_path, suffix):
    image = sitk.GetImageFromArray(grey(np.uint8, 255))
    image.SetSpacing((0.25, 0.25))
    path = tmp_path / f"f.{suffix}"
    sitk.WriteImage(image, str(path))
    reference = sitk.ReadImage(str(path))
    array, meta = load(path, pixel_size=reference.GetSpacing(), origin=reference.GetOrigin())
    for index in [(0, 0), (4, 0), (1, 6)]:
        world = meta["affine"] @ [*index, 1.0]
        np.testing.assert_allclose(world[:2], reference.TransformIndexToPhysicalPoint(index), atol=1e-12)
        assert array[index] == np.ravel(reference[index])[0]  # SimpleITK repeats the grey of a BMP as colour


def test_affine_of_pixel_size_and_origin(tmp_path):
    Image.fromarray(grey(np.uint8, 255)).save(tmp_path / "f.png")
    _, meta = load(tmp_path / "f.png", pixel_size=(0.2, 0.3), origin=(0.05, -4))
    np.testing.assert_array_equal(meta["affine"], [[0.2, 0, 0.05], [0, 0.3, -4], [0, 0, 1]])
    assert meta["pixel_size_source"] == "given"


TAGS = [
    ("f.png", {"dpi": (254, 127)}, (0.1, 0.2), 2e-6),  # PNG and BMP keep whole dots per metre
    ("f.tif", {"dpi": (254, 127)}, (0.1, 0.2), 1e-9),
    ("f.tif", {"resolution": 100.0, "resolution_unit": "cm"}, (0.1, 0.1), 1e-9),
    ("f.bmp", {"dpi": (254, 254)}, (0.1, 0.1), 2e-6),
    ("f.jpg", {"dpi": (254, 127)}, (0.1, 0.2), 1e-9),
]


@pytest.mark.parametrize(("name", "tag", "pixel_size", "tolerance"), TAGS)
def test_pixel_size_from_the_resolution_tag(tmp_path, name, tag, pixel_size, tolerance):
    Image.fromarray(grey(np.uint8, 255)).save(tmp_path / name, **tag)
    _, meta = load(tmp_path / name, pixel_size=None)
    np.testing.assert_allclose(np.diag(meta["affine"])[:2], pixel_size, rtol=tolerance)
    assert meta["pixel_size_source"] == "file"


@pytest.mark.parametrize("name", ["f.png", "f.tif", "f.jpg", "f.bmp"])
@pytest.mark.parametrize("dpi", [None, 72, 96])
def test_no_pixel_size_is_an_error_unless_pixels_will_do(tmp_path, name, dpi):
    tag = {} if dpi is None else {"dpi": (dpi, dpi)}
    Image.fromarray(grey(np.uint8, 255)).save(tmp_path / name, **tag)
    with pytest.raises(LandmarkError, match=f"'{name}' carries no pixel size .*give pixel_size="):
        load(tmp_path / name, pixel_size=None)
    _, meta = load(tmp_path / name, pixel_size=None, require_pixel_size=False)
    np.testing.assert_array_equal(meta["affine"], np.eye(3))
    assert meta["pixel_size_source"] == "none"


@pytest.mark.parametrize("by_name", [False, True])
def test_load_image_does_not_fall_back_to_a_reader_without_pixel_size(tmp_path, by_name):
    Image.fromarray(grey(np.uint8, 255)).save(tmp_path / "f.png")
    reader: Any = "monai_landmarks.data.film_reader.FilmReader" if by_name else FilmReader
    with pytest.raises(LandmarkError, match="carries no pixel size"):
        LoadImage(reader=reader)(tmp_path / "f.png")
    with pytest.raises(ValueError, match=r"no option .'pixelsize'"):
        LoadImage(reader=reader, pixelsize=0.1)
    image = LoadImage(reader=reader, pixel_size=0.1, ensure_channel_first=True)(tmp_path / "f.png")
    assert image.shape == (1, COLUMNS, ROWS)
    assert image.dtype == torch.float32
    assert image.affine.shape == (3, 3)
    assert image.meta["filename_or_obj"] == str(tmp_path / "f.png")


SHOWN = {  # what a viewer shows of the stored rows, by the EXIF 2.3 specification
    2: lambda rows: rows[:, ::-1],
    3: lambda rows: rows[::-1, ::-1],
    4: lambda rows: rows[::-1],
    5: lambda rows: rows.T,
    6: lambda rows: np.rot90(rows, -1),
    7: lambda rows: rows[::-1, ::-1].T,
    8: lambda rows: np.rot90(rows),
}


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", sorted(SHOWN))
def test_exif_rotation_needs_a_choice(tmp_path, suffix, orientation):
    picture = grey(np.uint8, 255)
    path = tmp_path / f"f.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(path, exif=exif, dpi=(254, 127))
    with pytest.raises(LandmarkError, match=rf"EXIF orientation {orientation}.*exif_rotation='apply'"):
        load(path)
    stored, meta = load(path, exif_rotation="ignore", pixel_size=None)
    np.testing.assert_array_equal(stored, picture.T)
    np.testing.assert_allclose(np.diag(meta["affine"])[:2], (0.1, 0.2), rtol=1e-5)
    shown, meta = load(path, exif_rotation="apply", pixel_size=None)
    np.testing.assert_array_equal(shown, SHOWN[orientation](picture).T)
    expected = (0.2, 0.1) if orientation >= 5 else (0.1, 0.2)
    np.testing.assert_allclose(np.diag(meta["affine"])[:2], expected, rtol=1e-5)


def test_pages_need_a_choice(tmp_path):
    pages = [Image.fromarray(np.full((ROWS, COLUMNS), value, np.uint8)) for value in (1, 2)]
    pages[0].save(tmp_path / "f.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(LandmarkError, match=r"2 pages.*frame=0"):
        load(tmp_path / "f.tif")
    assert (load(tmp_path / "f.tif", frame=1)[0] == 2).all()
    with pytest.raises(LandmarkError, match="frame must be 0"):
        load(tmp_path / "f.tif", frame=2)


def test_several_films_become_channels(tmp_path):
    for value in (1, 2):
        Image.fromarray(np.full((ROWS, COLUMNS), value, np.uint8)).save(tmp_path / f"{value}.png")
    Image.fromarray(np.zeros((ROWS, COLUMNS + 1), np.uint8)).save(tmp_path / "wide.png")
    loader = LoadImage(reader=FilmReader(pixel_size=0.5), ensure_channel_first=True)
    image = loader([tmp_path / "1.png", tmp_path / "2.png"])
    assert image.shape == (2, COLUMNS, ROWS)
    assert image[:, 0, 0].tolist() == [1, 2]
    with pytest.raises(LandmarkError, match="one size"):
        loader([tmp_path / "1.png", tmp_path / "wide.png"])


def _nifti(folder: Path) -> Path:
    path = folder / "case.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 4, 4), np.uint8)), str(path))
    return path


def _write(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def _picture_bytes(folder: Path, suffix: str) -> bytes:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60), np.uint8)).save(folder / f"whole.{suffix}")
    return (folder / f"whole.{suffix}").read_bytes()


BAD_FILES = [
    (_nifti, "volume, not a film.*LoadImaged"),
    (lambda f: _write(f, "volume.nii.gz", _picture_bytes(f, "png")), "PNG picture under the name of a .nii.gz volume"),
    (lambda f: _write(f, "cut.png", _picture_bytes(f, "png")[:1500]), "'cut.png' is damaged"),
    (lambda f: _write(f, "cut.jpg", _picture_bytes(f, "jpg")[:1500]), "'cut.jpg' is damaged"),
    (lambda f: _write(f, "cut.bmp", _picture_bytes(f, "bmp")[:3000]), "'cut.bmp' is damaged"),
    (lambda f: _write(f, "empty.png", b""), "empty"),
    (lambda f: _write(f, "text.png", b"<html>not found</html>"), "not a PNG, JPEG, BMP or TIFF"),
    (lambda f: _write(f, "packed.png", gzip.compress(b"x")), "gzip"),
    (lambda f: _write(f, "scan.png", bytes(128) + b"DICM"), "DICOM: load it with"),
    (lambda f: _write(f, "old.png", b"GIF89a"), "GIF"),
]


@pytest.mark.parametrize(("make", "message"), BAD_FILES)
def test_other_and_damaged_files_are_named(tmp_path, make, message):
    path = make(tmp_path)
    with pytest.raises(LandmarkError, match=message):
        load(path)
    with pytest.raises(LandmarkError, match=message):
        LoadImaged("image", reader=FilmReader(pixel_size=1.0))({"image": path})


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing.png' does not exist"):
        load(tmp_path / "nothing.png")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        load(tmp_path)


BAD_OPTIONS = [
    ({"pixel_size": 0}, "positive"),
    ({"pixel_size": (0.1, -0.1)}, "positive"),
    ({"pixel_size": (1, 2, 3)}, "one number of millimetres per pixel or two"),
    ({"pixel_size": "0,1mm"}, "one number"),
    ({"pixel_size": float("nan")}, "one number"),
    ({"origin": (1, 2, 3)}, "centre of pixel"),
    ({"colour": "luminence"}, "luminance"),
    ({"exif_rotation": "yes"}, "apply"),
    ({"spacing": 0.1}, "no option"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_options_are_checked_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        FilmReader(**options)


def test_suffixes_and_pickle():
    reader = FilmReader(pixel_size=0.1)
    assert reader.verify_suffix(["a.png", "b.TIFF".lower()])
    assert not reader.verify_suffix("a.nii.gz")
    assert pickle.loads(pickle.dumps(reader)).pixel_size == (0.1, 0.1)


@pytest.mark.real_data
def test_real_film_has_the_landmark_where_the_table_says(real_data):
    folder = real_data("isbi2015_cephalograms")
    image = LoadImage(reader=FilmReader(pixel_size=0.2, origin=0.05))(folder / "RawImage/TrainingData/001.jpg")
    assert isinstance(image, MetaTensor)
    assert image.shape == (968, 1200)
    # original pixel x = 2 * x_here + 0.5, and 0.1 mm each: the centre of the last column is original pixel 1934.5
    corner = image.affine @ torch.tensor([967.0, 1199.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(corner[:2], torch.tensor([193.45, 239.85], dtype=torch.float64))

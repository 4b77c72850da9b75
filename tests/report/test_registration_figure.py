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
"""The figure of a registration: pictures, points and grid lines at their places."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.networks.blocks.displacement import Registration, affine_displacement
from monai_landmarks.report import figure_array
from monai_landmarks.report.registration_figure import figure_registration

NAN = float("nan")


def shifts(shape, first, second):
    """The exemplar moved by -first, then by -second more."""
    dims = len(shape)
    affine = torch.eye(dims, dims + 1)[None].clone()
    affine[0, :, -1] = torch.tensor(first)
    step = torch.tensor(second).reshape(1, dims, *(1,) * dims).expand(1, dims, *shape)
    field = affine_displacement(affine, shape)
    return Registration(affine, [step], [field, field + step])


def offsets(ax, gid):
    (found,) = [c for c in ax.collections if c.get_gid() == gid]
    return np.ma.filled(found.get_offsets(), np.nan)


def grid_of(ax, axis):
    """Where the lines of one axis cross."""
    (found,) = [c for c in ax.collections if c.get_gid() == f"grid_{axis}"]
    return sorted({round(float(v), 3) for path in found.get_paths() for v in path.vertices[:, axis]})


def test_pictures_points_and_lines_have_moved_as_the_fields_say():
    shape = (40, 30)
    exemplar, target = torch.rand(1, *shape), torch.rand(1, *shape)
    found = shifts(shape, (4.0, -3.0), (0.0, 2.0))
    points = torch.tensor([[20.25, 11.5], [NAN, NAN], [8.0, 9.0]])
    figure = figure_registration(exemplar, points, target, found, truth=points + 1, grid_step=10, title="031")
    first, after_global, after_all, last = figure.axes
    np.testing.assert_allclose(offsets(first, "template_point"), points)
    np.testing.assert_allclose(offsets(after_global, "carried"), points - torch.tensor([4.0, -3.0]), atol=1e-4)
    for ax in (after_all, last):
        np.testing.assert_allclose(offsets(ax, "carried"), points - torch.tensor([4.0, -1.0]), atol=1e-4)
    np.testing.assert_allclose(offsets(last, "truth"), points + 1)
    np.testing.assert_allclose(after_global.images[0].get_array()[3:, :36], exemplar[0, 4:, :27].T, atol=1e-4)
    np.testing.assert_allclose(last.images[0].get_array(), target[0].T)
    assert (grid_of(after_global, 0), grid_of(after_global, 1)) == ([6.0, 16.0, 26.0], [3.0, 13.0, 23.0])
    assert (grid_of(after_all, 0), grid_of(after_all, 1)) == ([6.0, 16.0, 26.0], [1.0, 11.0, 21.0])
    assert not [c for c in last.collections if str(c.get_gid()).startswith("grid")]
    assert (last.get_xlim(), last.get_ylim()) == ((-0.5, 39.5), (29.5, -0.5))
    assert figure_array(figure, 30).ndim == 3


def test_a_volume_and_a_batch_of_one_are_drawn():
    shape = (20, 17, 15)
    affine = torch.diag(torch.tensor([1.0, 1.0, 2.0, 1.0]))
    volume = MetaTensor(torch.rand(1, *shape), affine=affine)
    found = shifts(shape, (2.0, 0.0, 3.0), (0.0, 0.0, 0.0))
    figure = figure_registration(volume, torch.tensor([[10.0, 8.0, 9.0]]), volume, found)
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), volume[0, :, :, 9].T)
    np.testing.assert_allclose(figure.axes[3].images[0].get_array(), volume[0, :, :, 6].T)
    film = torch.rand(1, 1, 20, 17)
    flat = figure_registration(film, torch.ones(1, 1, 2), film, shifts((20, 17), (0.0, 0.0), (1.0, 0.0)))
    assert len(flat.axes) == 4
    assert figure_array(figure, 30).ndim == 3


def test_what_does_not_fit_is_refused():
    image, point = torch.rand(1, 20, 17), torch.ones(1, 2)
    found = shifts((20, 17), (0.0, 0.0), (1.0, 0.0))
    with pytest.raises(LandmarkError, match="share one grid"):
        figure_registration(image, point, torch.rand(1, 20, 18), found)
    with pytest.raises(LandmarkError, match="share one grid"):
        figure_registration(
            image, point, image, Registration(found.affine, [], [found.fields[0].expand(2, -1, -1, -1)])
        )
    with pytest.raises(LandmarkError, match="grid_step"):
        figure_registration(image, point, image, found, grid_step=0)

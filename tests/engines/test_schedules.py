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
"""Ramps have their printed values, and the curriculum is the published one."""

from __future__ import annotations

import itertools
import math

import pytest

from monai_landmarks.engines.schedules import RegistrationSchedule, hold_then_cosine, ramp


@pytest.mark.parametrize(
    ("kind", "begin", "half"), [("sigmoid", math.exp(-5), math.exp(-1.25)), ("cosine", 0, 0.5), ("linear", 0, 0.5)]
)
def test_a_ramp_rises_from_its_begin_to_one_and_stays(kind: str, begin: float, half: float) -> None:
    values = [ramp(epoch, 250, kind) for epoch in range(300)]
    assert values[0] == pytest.approx(begin)
    assert values[125] == pytest.approx(half)
    assert values[250:] == [1.0] * 50
    assert all(a <= b for a, b in itertools.pairwise(values))
    assert ramp(0, 0, kind) == 1


def test_the_published_curriculum() -> None:
    plan = RegistrationSchedule()
    assert plan.local(0) == pytest.approx(0.0067, abs=1e-4)
    assert plan.local(250) == 1
    assert [plan.synthetic(epoch) for epoch in (0, 175, 350, 600)] == pytest.approx([5, 2.5, 0, 0])
    assert plan.pseudo_epochs == 200


def test_a_short_training_goes_through_all_of_the_curriculum() -> None:
    plan, short = RegistrationSchedule(), RegistrationSchedule().scaled(30)
    for epoch in range(0, 750, 25):
        assert short.local(epoch / 25) == pytest.approx(plan.local(epoch))
        assert short.synthetic(epoch / 25) == pytest.approx(plan.synthetic(epoch))
    assert (short.pseudo_epochs, short.length) == (8, 30)


def test_learning_rate_of_the_paper() -> None:
    rates = [1e-4 * hold_then_cosine(epoch, 250, 750, 0.5) for epoch in (0, 249, 500, 750)]
    assert rates == pytest.approx([1e-4, 1e-4, 7.5e-5, 5e-5])


def test_epochs_that_cannot_be_meant() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        ramp(1, -2)
    with pytest.raises(ValueError, match=r"sigmoid"):
        ramp(1, 2, "sigmoidal")
    with pytest.raises(ValueError, match="must not be negative"):
        RegistrationSchedule(pseudo_epochs=-1)

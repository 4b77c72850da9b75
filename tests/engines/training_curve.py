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
"""What a trainer measures, epoch by epoch."""

from __future__ import annotations

from ignite.engine import Engine, Events


def curve_of(trainer: Engine) -> list[dict[str, float]]:
    """A list to which each epoch adds its metrics."""
    curve: list[dict[str, float]] = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: curve.append(dict(engine.state.metrics)))
    return curve

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
"""Left and right partners that a flip exchanges on purpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from .measure import affine_fit
from .observation import Observation
from .phantom import Phantom
from .report import Finding, Severity

__all__ = ["exchange_partners", "unmatched_flips"]


def exchange_partners(seen: Observation, partners: Mapping[int, int], phantom: Phantom) -> tuple[int, bool] | None:
    """Put partners that were exchanged on purpose back; return the image's handedness and whether they were."""
    if not partners or seen.problem:
        return None
    order = [partners.get(n, n) for n in range(len(seen.points))]
    rows = list(partners)
    other = seen.points[order]
    own = (seen.points - seen.places)[rows].norm(dim=-1).nanmedian()
    exchanged = bool((other - seen.places)[rows].norm(dim=-1).nanmedian() < own)
    if exchanged:
        seen.points = other
    fit = affine_fit(phantom.places, seen.places)
    return None if fit is None else (1 if float(torch.linalg.det(fit[0])) > 0 else -1, exchanged)


def unmatched_flips(
    handedness: Sequence[tuple[int, bool] | None], partners: Mapping[int, int], labels: Sequence[str]
) -> list[Finding]:
    """Partners are to be exchanged in the mirrored draws and in no others."""
    known = {one for one in handedness if one is not None}
    if len({hand for hand, _ in known}) < 2 and len(known) < 2:
        return []
    pairs = [(labels[a], labels[b]) for a, b in partners.items() if a < b]
    listed = ", ".join(f"{a} and {b}" for a, b in pairs[:4])
    if len(known) == 2 and len({hand for hand, _ in known}) == 2 and len({done for _, done in known}) == 2:
        return []
    text = (
        f"some draws mirror the image, but left and right partners ({listed}) are not exchanged in exactly those: in the "
        "mirrored image the left one lies where a right one is expected. Use RandFlipLandmarksd, which exchanges them."
    )
    return [Finding(Severity.FAULT, "sides_not_exchanged", text)]

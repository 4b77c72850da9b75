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
"""Measure what ``import monai_landmarks`` costs beyond ``import monai``, and that it needs no optional package.

Run as a program: each measurement has a process of its own. MONAI itself imports some of the packages where they are
installed, so their absence is simulated for this package's own import.
"""

from __future__ import annotations

import subprocess
import sys

ROOMS = (
    "data engines geometry handlers heatmaps inferers losses measurements metrics "
    "networks postprocessing protocols report transforms"
)
OPTIONAL = ("torchvision", "matplotlib", "SimpleITK", "itk", "timm")
LIMIT_S = 1.0

PROGRAM = f"""
import sys, time
import monai
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {OPTIONAL!r} and name.split(".")[0] not in sys.modules:
            raise ModuleNotFoundError(f"{{name}} was imported", name=name)
sys.meta_path.insert(0, Refuse())
start = time.perf_counter()
import monai_landmarks
print(time.perf_counter() - start)
for room in {ROOMS.split()!r}:
    getattr(monai_landmarks, room)
print(time.perf_counter() - start)
"""


def main() -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PROGRAM], check=True, capture_output=True, text=True
        ).stdout
        for _ in range(3)
    ]
    bare, rooms = (min(float(run.split()[i]) for run in runs) for i in range(2))
    print(f"import monai_landmarks: {bare:.3f} s over import monai; every room: {rooms:.3f} s")
    if bare > LIMIT_S:
        sys.exit(f"import costs {bare:.2f} s, the limit is {LIMIT_S} s")


if __name__ == "__main__":
    main()

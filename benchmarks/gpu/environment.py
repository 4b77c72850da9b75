"""Write what a job ran on: python environment.py FILE [name=value ...]; leave with a message where torch sees no GPU."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import monai
import torch

if not torch.cuda.is_available():
    sys.exit("this job is for a GPU, and torch sees none")
head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
facts = {
    "gpu": torch.cuda.get_device_name(),
    "torch": torch.__version__,
    "monai": monai.__version__,
    "python": platform.python_version(),
    "commit": head.stdout.strip() or "unknown",
    **dict(argument.split("=", 1) for argument in sys.argv[2:]),
}
with open(sys.argv[1], "w") as file:
    json.dump(facts, file, indent=2)

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
"""How far the normalisation of evaluation mode is from that of training: ``python -m benchmarks.batch_statistics --help``.

Batch normalisation trained with one image at a time has seen that image's statistics only; in evaluation mode it takes the
averages of the whole training instead. The same trained network is scored both ways, on the same cases.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch
from monai.bundle import ConfigParser
from torch.nn.modules.batchnorm import _BatchNorm

from monai_landmarks.handlers import LandmarkCheckpointLoader


def forget_averages(network: torch.nn.Module) -> None:
    """Let every batch normalisation use the statistics of what it sees, in evaluation mode too."""
    for layer in network.modules():
        if isinstance(layer, _BatchNorm):
            layer.running_mean = layer.running_var = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the validation metrics of a checkpoint in evaluation mode and with each image's own statistics."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch_statistics", description=__doc__)
    parser.add_argument("--config_file", nargs="+", required=True, help="train.json of a bundle and its overlays")
    parser.add_argument("--ckpt_path", required=True)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="settings of the bundle")
    options = parser.parse_args(arguments)
    for own_statistics in (False, True):
        config = ConfigParser()
        config.read_config(options.config_file)
        config.update(dict(pair.split("=", 1) for pair in options.set))
        config.update({"validate#handlers": []})
        network = config.get_parsed_content("network")
        LandmarkCheckpointLoader(options.ckpt_path, {"model": network})()
        if own_statistics:
            forget_averages(network)
        evaluator = config.get_parsed_content("validate#evaluator")
        evaluator.run()
        print("each image's own statistics" if own_statistics else "evaluation mode", evaluator.state.metrics, sep=": ")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""MoCo v2 on ImageNet, ResNet-50, 200 epochs: row d of pretrain/moco.py.

Command:   ssl-jax train --config=configs/pretrain/moco_v2.py --workdir=DIR --config.data.data_dir=TFDS
Expected:  Linear probe 67.5% top-1 [Chen et al. 2020].
Hardware and batch size: see configs/pretrain/moco.py.
"""

import pathlib
import runpy


def get_config():
  return runpy.run_path(str(pathlib.Path(__file__).with_name("moco.py")))["get_config"]("d")

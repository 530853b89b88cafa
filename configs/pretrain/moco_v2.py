"""MoCo v2 on ImageNet, ResNet-50, 200 epochs: row d of configs/pretrain/moco.py, which says the rest.

Command:   ssl-jax train --config=configs/pretrain/moco_v2.py --workdir=DIR --config.data.data_dir=TFDS
Expected:  linear probe 67.5% top-1 [Chen et al. 2020].
"""

import pathlib
import runpy


def get_config():
  return runpy.run_path(str(pathlib.Path(__file__).with_name("moco.py")))["get_config"]("d")

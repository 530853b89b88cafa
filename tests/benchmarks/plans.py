"""Makes the table of plans: real programs, compiled for chips that are not present.

    python tests/benchmarks/plans.py [NAME ...] [--output=FILE]

Each program takes minutes to compile on two cores. The numbers come from the compiler and are the same on
every machine. The last line is one JSON object.
"""

import os
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import dataclasses  # noqa: E402
import importlib.metadata  # noqa: E402
import importlib.util  # noqa: E402
import json  # noqa: E402
import pathlib  # noqa: E402

from ssl_jax.config.schema import EvaluateConfig, TrainConfig, check  # noqa: E402
from ssl_jax.planning import plan, write  # noqa: E402

ROOT = pathlib.Path(__file__).parents[2] / "configs"
MOCO = dict(batch_size=4096, encoder=dict(batch_groups=128))
TTT = "ttt/mae.py:imagenet"
# name: (recipe, changes, topology, evaluation, changes of its task ttt)
PLANS = {
  "moco": ("pretrain/moco.py:e", MOCO, "v5e:8x8", "", {}),
  # 128 images per chip
  "moco_128": ("pretrain/moco.py:e", dict(batch_size=2048, encoder=dict(batch_groups=64)), "v5e:4x4", "", {}),
  "moco_global": (
    "pretrain/moco.py:e",
    dict(batch_size=4096, encoder=dict(batch_groups=1), method=dict(shuffle=False)),
    "v5e:8x8",
    "",
    {},
  ),
  "simclr": ("pretrain/simclr.py:100", {}, "v5e:8x8", "", {}),
  "simclr_grouped": ("pretrain/simclr.py:100_grouped", {}, "v5e:8x8", "", {}),
  "mae": ("pretrain/mae.py:large", {}, "v5e:8x8", "", {}),
  "mae_no_remat": ("pretrain/mae.py:large", dict(encoder=dict(remat="none")), "v5e:8x8", "", {}),
  "mae_v5p": ("pretrain/mae.py:large", {}, "v5p:4x4x4", "", {}),
  "ttt_mae": ("transfer/vit_probe.py:vit_large", {}, "v5e:2x2", TTT, dict(micro_batches=8)),
  "ttt_mae_at_once": ("transfer/vit_probe.py:vit_large", {}, "v5p:2x2x1", TTT, {}),
  "moco_h100": ("pretrain/moco.py:e", MOCO, "h100:8x8", "", {}),
  "mae_h100": ("pretrain/mae.py:large", {}, "h100:8x8", "", {}),
  # 16 images on a slice of 8 chips: 2 a chip, as published on 8 GPUs
  "fcn": ("transfer/segmentation.py:voc12_fcn", {}, "v5e:2x4", "", {}),
  "fcn_cityscapes": ("transfer/segmentation.py:cityscapes_fcn", {}, "v5e:2x4", "", {}),
  "upernet": ("transfer/segmentation.py:ade20k_upernet_base", {}, "v5e:2x4", "", {}),
  # the encoders of these plans under a linear classifier of whole images, to compare
  "fcn_encoder": (
    "pretrain/supervised.py:imagenet",
    dict(
      batch_size=16, encoder=dict(output_stride=16, dilate="all"), augment=dict(size=513), data=dict(size=513)
    ),
    "v5e:2x4",
    "",
    {},
  ),
  "upernet_encoder": (
    "transfer/finetune.py:vit_base",
    dict(
      batch_size=16,
      encoder=dict(relative_positions=True, image_size=224),
      method=dict(mixup=0.0, cutmix=0.0),
      augment=dict(size=512),
      data=dict(size=512),
    ),
    "v5e:2x4",
    "",
    {},
  ),
  "fcn_16_a_chip": ("transfer/segmentation.py:voc12_fcn", dict(batch_size=128), "v5e:2x4", "", {}),
  # weak scaling: 64 images per chip
  **{
    f"moco_scaling_{chips}": (
      "pretrain/moco.py:e",
      dict(batch_size=64 * chips, encoder=dict(batch_groups=2 * chips)),
      topology,
      "",
      {},
    )
    for chips, topology in ((8, "v5e:2x4"), (64, "v5e:8x8"), (256, "v5e:16x16"))
  },
}


def load(file: str):
  """Loads the ConfigDict of FILE.py:VARIANT under configs."""
  path, _, variant = file.partition(":")
  specification = importlib.util.spec_from_file_location("recipe", ROOT / path)
  module = importlib.util.module_from_spec(specification)
  specification.loader.exec_module(module)
  return module.get_config(*[variant] * bool(variant))


def changed(config: TrainConfig, changes: dict) -> TrainConfig:
  def part(name: str, value):
    old = getattr(config, name)
    if dataclasses.is_dataclass(old):
      return dataclasses.replace(old, **value)
    return {**old, **value} if isinstance(value, dict) else value

  return dataclasses.replace(config, **{name: part(name, value) for name, value in changes.items()})


def main() -> None:
  names = [word for word in sys.argv[1:] if not word.startswith("--")] or [*PLANS]
  unknown = [name for name in names if name not in PLANS]
  if unknown:
    sys.exit(f"no plan is called {unknown[0]!r}; known: {', '.join(PLANS)}")
  output = next((word.removeprefix("--output=") for word in sys.argv if word.startswith("--output=")), "")
  table = {}
  for name in names:
    recipe, changes, topology, evaluation, options = PLANS[name]
    config = changed(check(TrainConfig, load(recipe)), changes)
    measured = evaluation and check(EvaluateConfig, load(evaluation))
    if options:
      measured = dataclasses.replace(measured, tasks={"ttt": {**measured.tasks["ttt"], **options}})
    found = plan(config, topology, evaluation=measured or None, advise=False)
    write(found, "")
    rows = found["tasks"] if evaluation else {name: found}
    for task, row in rows.items():
      table[name if task == name else f"{name} {task}"] = {
        "topology": topology,
        **{
          part: row[part]
          for part in ("fits", "memory", "an_image", "roofline", "collectives", "schedule")
          if part in row
        },
      }
    if output:
      pathlib.Path(output).write_text(json.dumps(table, indent=1))
  print(
    json.dumps(
      {
        "plans": table,
        "versions": {
          package: importlib.metadata.version(package)
          for package in ("jax", "libtpu")
          if importlib.util.find_spec(package)
        },
      }
    )
  )


if __name__ == "__main__":
  main()

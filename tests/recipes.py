"""Loads every recipe in configs/, shrinks recipes for tests, and saves checkpoints without training."""

import dataclasses
import functools
import pathlib
import runpy

import jax

from ssl_jax import parallel
from ssl_jax.config.schema import EvaluateConfig, TrainConfig, check, to_json
from ssl_jax.core import DataSpec
from ssl_jax.run.assembly import abstract_state, assemble
from ssl_jax.run.checkpoint import Checkpoints

CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "configs"


@functools.cache
def recipes(kind: type) -> dict:
  """Returns {"folder/file.py:variant": checked config} of all recipes in configs/ of this kind."""
  found = {}
  for path in sorted(CONFIGS.glob("*/*.py")):
    module = runpy.run_path(str(path))
    if "get_config" not in module:  # a study
      continue
    for variant in module.get("VARIANTS", ("",)):
      config = module["get_config"](variant) if variant else module["get_config"]()
      if ("method" in config) == (kind is TrainConfig):
        found[f"{path.parent.name}/{path.name}:{variant}".rstrip(":")] = check(kind, config)
  return found


def train_recipes() -> dict[str, TrainConfig]:
  return recipes(TrainConfig)


def evaluate_recipes() -> dict[str, EvaluateConfig]:
  return recipes(EvaluateConfig)


def shrunk(config: TrainConfig, *, batch: int, size: int) -> dict:
  """Returns the recipe as a JSON dict, made small enough for a test.

  The encoder is a tiny one of the same family, in float32; decoder, heads and tiles of the method are small.

  Args:
    batch: the batch size.
    size: the side of the images in pixels.
  """
  small = to_json(config)
  if small["encoder"]["name"].startswith("vit"):
    depth = 6 if small["method"].get("head") == "upernet" else 2
    small["encoder"] |= {
      "name": "vit",
      "width": 16,
      "depth": depth,
      "heads": 2,
      "patch": 4,
      "dtype": "float32",
    }
    decoder = {
      f"{part}_{name}": value
      for part in ("decoder", "head")
      for name, value in (("width", 16), ("depth", 1), ("heads", 2))
    }
    small["method"] |= {name: value for name, value in decoder.items() if name in small["method"]}
  elif small["encoder"]["name"].startswith(("preresnet", "wrn")):
    small["encoder"] |= {"name": "preresnet14", "width": 8, "stem": "small", "dtype": "float32"}
  elif small["encoder"]["name"] in ("caffenet", "alexnet"):  # too large for such images
    small["encoder"] = {"name": "resnet10", "width": 8, "stem": "small"}
  elif small["encoder"]["name"] == "pixel_encoder":
    small["encoder"] |= {"depth": 3, "channels": 8, "features": 16}
    small["method"] |= {"branch": "conv2", "hidden": 32}
  else:
    small["encoder"] |= {"name": "resnet10", "width": 8, "stem": "small", "dtype": "float32"}
  geometry = {
    "tile": 4,
    "gap": 1,
    "jitter": 2,
    "permutations": 24,
    "counts": 32,
    "mask_patch": 4,
    "width": 32,
    "channel_jitter": 0,
    "output": 8,
    "size": size,
    "layer": "",
  }
  small["method"] |= {name: value for name, value in geometry.items() if name in small["method"]}
  if small["method"].get("head") in ("fcn", "fcn_d8", "upernet"):
    small["method"]["channels"] = 16
  if small["method"]["name"] in ("detection", "densepose"):
    small["encoder"]["stem"] = "imagenet"
    small["method"] |= {
      "channels": 8,
      "hidden": 16,
      "anchors": 32,
      "rois": 8,
      "before": [32, 32],
      "proposals": [16, 8],
      "detections": 8,
      "anchor_scale": 0.25,
    }
    small["host"] |= {"max_boxes": 4}
    small["augment"] |= {"shorter": [size - 2, size], "longest": size}
  if small["method"]["name"] == "densepose":
    small["method"] |= {"dense_channels": 8, "dense_width": 8, "dense_layers": 1, "dense_rois": 1}
    small["host"] |= {"max_points": 8, "segment_size": 14}
  if small["encoder"].get("batch_groups", 1) > 1:
    small["encoder"]["batch_groups"] = 2
  small["data"] |= dataclasses.asdict(config.data) | {
    "name": "synthetic",
    "data_dir": "",
    "size": size,
    "crop": "device",
    "cache": False,
    "workers": 0,
  }
  small["host"] |= {side: size for side in ("height", "width") if side in small["host"]}
  small["augment"] |= {"size": size}
  small["batch_size"], small["accumulate"] = batch, 1  # parts of so few rows do not divide over the devices
  return small


def save(config: TrainConfig, path, *, steps=(4,)):
  """Saves checkpoints of an untrained network at `steps`; returns `path`, the folder of the run.

  Parameters and model state differ from step to step, and the moving average differs from the parameters.
  """
  _, init = abstract_state(assemble(config, DataSpec(128, 10, 32)), config, parallel.make_mesh())
  state = init()
  with Checkpoints(path, keep=3) as checkpoints:
    for step in steps:
      moved = jax.tree.map(lambda leaf, step=step: leaf + 0.01 * step, (state.params, state.model_state))
      average = getattr(state.extra, "ema", None)
      extra = (
        state.extra
        if average is None
        else state.extra._replace(ema=jax.tree.map(lambda leaf: leaf + 1.0, average))
      )
      checkpoints.save(
        state.replace(params=moved[0], model_state=moved[1], extra=extra),
        {"config": to_json(config), "data": {"num_examples": 128, "num_classes": 10}},
        step=step,
      )
    checkpoints.wait()
  return path

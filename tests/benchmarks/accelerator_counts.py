"""FLOPs of an image of the cases of accelerator.py, from XLA's cost analysis of lowered steps on a CPU."""

from __future__ import annotations

import accelerator_ours as ours
import jax
import numpy as np
from accelerator_cases import WORK

from ssl_jax.planning import hlo

BATCH = 8  # of the lowered steps; a queue of negatives counts for each image alike


def flops(lowered: jax.stages.Lowered) -> float:
  """FLOPs of a lowered program."""
  return hlo.cost(lowered.compiler_ir("hlo").get_hlo_module().to_string()).flops


def trained(lower) -> float:
  """FLOPs of an image of a training step."""
  return lambda **sizes: flops(lower(**sizes | dict(batch=BATCH)).step) / BATCH


def adapted(prepare):
  """FLOPs of the adaptation to an image."""

  def per_image(**sizes) -> float:
    learn, weights, moving = prepare(**sizes)
    side = sizes.get("side", 32)
    sample, key = {"image": np.zeros((side, side, 3), np.uint8)}, jax.random.key(0)
    begin = jax.jit(learn.begin).lower(weights, moving, key, sample, np.int32(0))
    state = jax.eval_shape(learn.begin, weights, moving, key, sample, np.int32(0))
    step = jax.jit(learn.step).lower(weights, state, np.int32(0))
    return 2 * flops(begin) + learn.steps * flops(step)  # a prediction before and one after

  return per_image


def features(*, network, side, **sizes) -> float:
  """FLOPs of an image of the encoder."""
  encoder, images = ours.resnet(network), ours.random_images(BATCH, side, side, 3)
  weights = jax.eval_shape(encoder.init, jax.random.key(0), images)
  return (
    flops(jax.jit(lambda weights, images: encoder.apply(weights, images)[0]).lower(weights, images)) / BATCH
  )


COUNTS = {
  "moco_step": trained(ours.lower_moco),
  "mae_large": trained(ours.lower_mae),
  "mae_base": trained(ours.lower_mae),
  "simclr": trained(ours.lower_simclr),
  "ttt": adapted(ours.ttt_rotation),
  "ttt_mae": adapted(ours.ttt_mae),
  "features": features,
}


def gflop(name: str, **sizes) -> float:
  """GFLOP of an image at the full sizes, or at those that are given instead."""
  return COUNTS[name](**WORK[name].full | sizes) / 1e9

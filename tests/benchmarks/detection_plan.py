"""Compiles the training steps of two detectors for one TPU chip that need not be present.

    python tests/benchmarks/detection_plan.py [fpn] [c4] [small] [tiny] [--topology v5e:2x2]

"fpn": Mask R-CNN, ResNet-50 with a feature pyramid, 4 images of 1024 x 1024; "c4": Faster R-CNN,
ResNet-50-C4, 2 images of 800 x 1344; "small": Mask R-CNN, ResNet-18 with a pyramid, an image of 256 x 256;
"tiny": Faster R-CNN, ResNet-18 with a pyramid, 2 images of 128 x 128 with few boxes, for the tests. All in
bfloat16 with SGD with momentum, and the published numbers of boxes where nothing else is said. For each:
whether it fits, FLOPs of an image by the compiler and by the layers' sizes (forward pass and both
gradients), and the parts that suppression, RoIAlign and the other pieces of `ssl_jax.detect` take of FLOPs,
memory traffic and time. Time is the sum over instructions of their lower bounds by FLOPs and by traffic;
loops of unknown length, the rounds of suppression within a tile, count once; an instruction has no overhead,
so their number is given, too. Compiling takes 5 to 15 minutes of processor time a detector. Needs libtpu
(extra `tpu`). The last line is one JSON object.
"""

import argparse
import functools
import importlib.metadata
import json
import os
import time
from typing import Literal, NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: E402

from ssl_jax import models  # noqa: E402
from ssl_jax.core import Weights  # noqa: E402
from ssl_jax.detect.rules import FOREGROUND, LIMITS, Limits  # noqa: E402
from ssl_jax.models.detection import detector  # noqa: E402
from ssl_jax.planning import hlo  # noqa: E402
from ssl_jax.planning.chips import Chip  # noqa: E402
from ssl_jax.planning.scopes import parts  # noqa: E402
from ssl_jax.planning.topology import open_topology, quiet  # noqa: E402


class Case(NamedTuple):
  """A detector and its batch."""

  kind: Literal["c4", "fpn"]
  encoder: str
  side: tuple[int, int]  # (height, width) in pixels
  images: int
  classes: int
  masks: bool
  limits: Limits


CASES = {
  "fpn": Case("fpn", "resnet50", (1024, 1024), 4, 80, True, LIMITS["fpn"]),
  "c4": Case("c4", "resnet50", (800, 1344), 2, 20, False, LIMITS["c4"]),
  "small": Case("fpn", "resnet18", (256, 256), 1, 80, True, LIMITS["fpn"]),
  "tiny": Case(
    "fpn", "resnet18", (128, 128), 2, 20, False, Limits((500, 500), (250, 250), anchors=64, rois=64)
  ),
}
SCOPES = ("nms", "roi_align", "match", "random_sample", "select_proposals", "crop_masks")
OBJECTS, MASK_SIDE, CHANNELS, HIDDEN = 100, 112, 256, 1024
RULE = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(0.02, momentum=0.9))


def conv(height: int, width: int, inner: int, outer: int, kernel: int = 1) -> int:
  """FLOPs of a convolution by the size of its result."""
  return 2 * height * width * inner * outer * kernel**2


def stage(number: int, height: int, width: int, *, bottleneck: bool, depth: int) -> int:
  """FLOPs of a stage of a ResNet on a map of this size, before its stride."""
  factor, narrow = (4 if bottleneck else 1), 64 * 2**number
  outer, total = factor * narrow, 0
  for block in range(depth):
    first = block == 0
    inner = outer if not first else 64 if not number else outer // 2
    h, w = (height // 2, width // 2) if first and number else (height, width)
    if bottleneck:
      total += conv(height, width, inner, narrow) + conv(h, w, narrow, narrow, 3) + conv(h, w, narrow, outer)
    else:
      total += conv(h, w, inner, narrow, 3) + conv(h, w, narrow, narrow, 3)
    total += conv(h, w, inner, outer) if inner != outer else 0  # the shortcut
    height, width = h, w
  return total


def interpolation(rois: int, size: int, height: int, width: int, channels: int) -> int:
  """FLOPs of RoIAlign by two matrices on one map."""
  return 2 * rois * channels * (size * height * width + size**2 * width)


def analytic(case: Case) -> dict[str, int]:
  """FLOPs of training on one image, by part: 3 times the forward pass, 2 for RoIAlign, whose boxes and
  matrices have no gradient, and for the stem, whose input has none."""
  (height, width), bottleneck = case.side, case.encoder == "resnet50"
  depths, rois = (3, 4, 6, 3) if bottleneck else (2, 2, 2, 2), case.limits.rois
  body = functools.partial(stage, bottleneck=bottleneck)
  widths = [64 * 2**i * (4 if bottleneck else 1) for i in range(4)]
  strides = [4 * 2**i for i in range(5)]
  before = [max(stride // 2, 4) for stride in strides]
  stages = [body(i, height // before[i], width // before[i], depth=depths[i]) for i in range(4)]
  found = {"encoder": 2 * conv(height // 2, width // 2, 3, 64, 7)}
  if case.kind == "c4":
    h, w = height // 16, width // 16
    found["encoder"] += 3 * sum(stages[:3])
    found["rpn"] = 3 * (conv(h, w, widths[2], widths[2], 3) + conv(h, w, widths[2], 15 * 5))
    found["roi_align"] = 2 * interpolation(rois, 14, h, w, widths[2])
    found["box"] = 3 * rois * (body(3, 14, 14, depth=depths[3]) + conv(1, 1, widths[3], 5 * case.classes + 1))
    return found
  maps = [(height // stride, width // stride) for stride in strides]
  found["encoder"] += 3 * sum(stages)
  found["fpn"] = 3 * sum(
    conv(*m, inner, CHANNELS) + conv(*m, CHANNELS, CHANNELS, 3) for m, inner in zip(maps, widths)
  )
  maps.append((height // 64, width // 64))
  rpn = lambda m: conv(*m, CHANNELS, CHANNELS, 3) + conv(*m, CHANNELS, 15)
  found["rpn"] = 3 * sum(rpn(m) for m in maps[:4] + maps[-1:])
  crops = [(rois, 7)] + [(int(rois * FOREGROUND), 14)] * case.masks
  found["roi_align"] = 2 * sum(interpolation(*crop, *m, CHANNELS) for crop in crops for m in maps[:4])
  dense = (
    conv(1, 1, 49 * CHANNELS, HIDDEN) + conv(1, 1, HIDDEN, HIDDEN) + conv(1, 1, HIDDEN, 5 * case.classes + 1)
  )
  found["box"] = 3 * rois * dense
  mask = 4 * conv(14, 14, CHANNELS, CHANNELS, 3) + conv(28, 28, CHANNELS, CHANNELS)
  found["mask"] = 3 * case.masks * int(rois * FOREGROUND) * (mask + conv(28, 28, CHANNELS, case.classes))
  return found


def lower(case: Case, device):
  """Lowers the training step for one device."""
  where = NamedSharding(Mesh([device], ("data",)), PartitionSpec())
  shape = lambda *sizes, dtype=jnp.float32: jax.ShapeDtypeStruct(sizes, dtype, sharding=where)
  placed = functools.partial(jax.tree.map, lambda leaf: shape(*leaf.shape, dtype=leaf.dtype))
  encoder, images = models.make(case.encoder, dtype="bfloat16"), case.images
  net = detector(encoder, case.classes, case.kind, case.masks, limits=case.limits)
  targets = {
    "boxes": shape(images, OBJECTS, 4),
    "boxes_class": shape(images, OBJECTS, dtype=jnp.int32),
    "boxes_valid": shape(images, OBJECTS, dtype=jnp.bool_),
    "boxes_crowd": shape(images, OBJECTS, dtype=jnp.bool_),
  }
  if case.masks:
    size = (MASK_SIDE, MASK_SIDE)
    targets |= {"masks": shape(images, OBJECTS, *size, dtype=jnp.bool_), "mask_frames": targets["boxes"]}
  pixels, key = shape(images, *case.side, 3), placed(jax.eval_shape(lambda: jax.random.key(0)))
  weights = placed(jax.eval_shape(net.init, key, pixels))
  optimizer = placed(jax.eval_shape(RULE.init, weights.params))

  def step(weights: Weights, optimizer, images, sizes, targets, key):
    def loss(params):
      terms, state = net.train_loss(Weights(params, weights.model_state), images, sizes, targets, key)
      return sum(terms.values()), state

    (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(weights.params)
    updates, optimizer = RULE.update(gradient, optimizer, weights.params)
    return Weights(optax.apply_updates(weights.params, updates), state), optimizer, value

  sizes = shape(images, 2, dtype=jnp.int32)
  program = jax.jit(step, donate_argnums=(0, 1))
  return program.lower(weights, optimizer, pixels, sizes, targets, key)


def measure(case: Case, chip: Chip, device) -> dict:
  """Compiles a case and reads its memory, FLOPs and parts; see the module's description."""
  began = time.process_time()
  with quiet():
    compiled = lower(case, device).compile()
  sizes, text = compiled.memory_analysis(), compiled.as_text()
  needed = sizes.argument_size_in_bytes + sizes.temp_size_in_bytes + sizes.generated_code_size_in_bytes
  needed += sizes.output_size_in_bytes - sizes.alias_size_in_bytes
  formula = analytic(case)
  found = parts(text, SCOPES, chip)
  whole = found.pop("all")
  flops = hlo.cost(text).flops / case.images
  return {
    "compile_processor_s": round(time.process_time() - began),
    "fits": bool(needed <= chip.memory * chip.share),
    "gigabytes": round(needed / 1e9, 2),
    "gigaflop_an_image": round(flops / 1e9, 1),
    "analytic_gigaflop_an_image": {part: round(value / 1e9, 1) for part, value in formula.items()},
    "of_analytic": round(flops / sum(formula.values()), 3),
    "traffic_gigabytes_an_image": round(whole.hbm_bytes / case.images / 1e9, 2),
    "least_step_ms": round(1e3 * whole.seconds, 2),
    "instructions": whole.instructions,
    "largest_array_megabytes": round(whole.largest / 1e6, 1),
    "parts": {
      scope: {
        "flops": round(part.flops / whole.flops, 4),
        "traffic": round(part.hbm_bytes / whole.hbm_bytes, 4),
        "time": round(part.seconds / whole.seconds, 4),
        "instructions": part.instructions,
        "largest_array_megabytes": round(part.largest / 1e6, 1),
      }
      for scope, part in found.items()
    },
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("cases", nargs="*", default=["fpn", "c4"])
  parser.add_argument("--topology", default="v5e:2x2")
  args = parser.parse_args()
  chip, mesh = open_topology(args.topology)
  found = {}
  for name in args.cases:
    found[name] = measure(CASES[name], chip, mesh.devices.reshape(-1)[0])
    print(name, json.dumps(found[name]), flush=True)
  versions = {name: importlib.metadata.version(name) for name in ("jax", "flax", "libtpu")}
  print(json.dumps({"benchmark": "detection_plan", "topology": args.topology, **found, "versions": versions}))


if __name__ == "__main__":
  main()

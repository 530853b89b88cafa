"""Measures learning along a video with a small vision transformer: ours and a plain PyTorch loop.

    python tests/benchmarks/video_streams.py [--frames 6] [--rounds 3] [--side 96]

A ViT-Tiny of four channels with linear heads for classes and pixels, as `joint_segmentation`; at each frame
one AdamW step on 32 crops of the latest 16 frames, masked by 80%, and a prediction of the whole frame. Ours
also predicts each frame before the step, which the task reports. Both run in one process, in turn; PyTorch is
eager with scaled_dot_product_attention and a fused optimiser. The last line is one JSON object.
"""

import argparse
import json

import jax
import jax.numpy as jnp
import numpy as np
from side_by_side import fastest, machine

from ssl_jax import augment, methods, models, parallel, ttt
from ssl_jax.config.checked import defaults_of
from ssl_jax.core import DataSpec, Weights
from ssl_jax.data.elements import ShapeDtype
from ssl_jax.parallel import placement
from ssl_jax.tasks import streams, ttt_video
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.stream_options import Options
from ssl_jax.tasks.video_streams import Video, samples_at

CLASSES, WINDOW, COPIES, WIDTH, DEPTH, HEADS = 11, 16, 32, 192, 12, 3


def ours(frames: np.ndarray, side: int):
  """Returns () -> the classes of each frame."""
  encoder = models.make("vit_tiny", image_size=side)
  method = methods.make(
    "joint_segmentation",
    encoder,
    DataSpec(1000, CLASSES, 8, {"mask": ShapeDtype((side, side), np.uint8)}),
    head="linear",
  )
  params, state, _ = jax.jit(method.init)(jax.random.key(0), {"image": jnp.zeros((2, side, side, 3))})
  given = {**defaults_of(ttt_video.make), "window": WINDOW, "copies": COPIES}
  options = Options(**{name: given[name] for name in Options._fields})
  backbone = Backbone(Weights(params, state), method, {})
  learn = streams.make_adapt(
    options, backbone, augment.make("scale_jitter", size=side, scale=(1.0, 1.0), flip=0.0, views=1)
  )
  mesh = parallel.make_mesh(jax.devices()[:1])
  program = ttt.compile_adapt(learn, mesh, together=1, carried=True)
  weights, first = ttt.initial_params(backbone)
  weights, key = placement.replicate((weights, jax.random.key(1)), mesh)
  first = jax.tree.map(lambda leaf: leaf[None], first)
  size = np.array(frames.shape[1:3], np.int32)

  def read(positions):
    return [{"image": frames[position], "image_size": size} for position in positions]

  video, learning = Video("video", 0, np.arange(len(frames))), options.learning(0)
  classes = jax.jit(lambda logits: logits.argmax(-1))

  def run():
    current, found = first, []
    for moment in range(len(frames)):
      samples, positions = samples_at(read, [video], moment, learning)
      result, current = program.respond(weights, current, key, samples, positions)
      found.append(classes(result.logits))
    return jax.device_get(found)

  return run


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  for name, value in (("frames", 6), ("rounds", 3), ("side", 96), ("height", 128), ("width", 160)):
    parser.add_argument(f"--{name}", type=int, default=value)
  args = parser.parse_args()
  frames = np.random.default_rng(0).integers(0, 256, (args.frames, args.height, args.width, 3), np.uint8)
  functions, packages = {"ours": ours(frames, args.side)}, ("optax",)
  try:
    from mae_torch import Shape
    from video_streams_torch import follow

    shape = Shape(WIDTH, DEPTH, HEADS)
    functions["torch"] = follow(frames, shape, CLASSES, side=args.side, window=WINDOW, copies=COPIES)
    packages += ("torch",)
  except ImportError:
    print("PyTorch is not installed (extra `bench`): ours alone", flush=True)
  seconds = fastest(functions, args.rounds)
  found = {f"{name}_frames_a_second": round(args.frames / took, 3) for name, took in seconds.items()}
  if "torch" in seconds:
    found["times_torch"] = round(seconds["torch"] / seconds["ours"], 3)
  print(json.dumps({"benchmark": "video_streams", **vars(args), **found, **machine(*packages)}))


if __name__ == "__main__":
  main()

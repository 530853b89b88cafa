"""Our side of the cases of accelerator.py: name -> a function of the case's sizes that returns a Run."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from accelerator_measure import Run, covered, timed
from side_by_side import lower_step

from ssl_jax import augment, corrupt, methods, models, parallel, ttt
from ssl_jax.abilities import Adaptable
from ssl_jax.augment.compose import for_each
from ssl_jax.core import DataSpec, Weights
from ssl_jax.parallel import placement

SGD = dict(learning_rate=0.03, weight_decay=1e-4, schedule="constant")
LARS = dict(name="lars", learning_rate=0.3, weight_decay=1e-6, schedule="constant")
ADAMW = dict(
  name="adamw",
  learning_rate=1.5e-4,
  momentum=0.9,
  beta2=0.95,
  weight_decay=0.05,
  weight_decay_on="matrices",
  schedule="constant",
)
MOCO = dict(dim=128, mlp=True, momentum=0.999, temperature=0.2)


def random_images(*shape: int) -> jax.Array:
  """f32[*shape] in [0, 1], made on the device."""
  return jax.random.uniform(jax.random.key(1), shape)


def trained(lowered) -> Run:
  """Compiles a lowered training step while the initial state is made."""
  began = time.perf_counter()
  with ThreadPoolExecutor(1) as pool:
    compiling = pool.submit(lowered.step.compile)
    state = jax.block_until_ready(lowered.init())
    step = compiling.result()
  seconds = time.perf_counter() - began

  def advance():
    nonlocal state
    state, metrics = step(state, lowered.batch)
    return metrics["loss"]

  details = {"compile_seconds": round(seconds, 1), "parameters": lowered.parameters, **program_memory(step)}
  run = Run(advance, jax.block_until_ready, len(next(iter(lowered.batch.values()))), details)
  return run._replace(finish=lambda: {"loss": round(float(advance().value()), 4), **device_report(run)})


def program_memory(compiled) -> dict:
  """What the compiler says that the program needs."""
  sizes = compiled.memory_analysis()
  if not sizes:
    return {}
  total = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
  return {"program_gib": round((total + sizes.temp_size_in_bytes) / 2**30, 3)}


def device_report(run: Run) -> dict:
  """The allocator's peak, and the share of the time that the device is busy according to the profiler."""
  stats = jax.devices()[0].memory_stats() or {}
  found: dict = {"device": jax.devices()[0].device_kind}
  if "peak_bytes_in_use" in stats:
    found["peak_gib"] = round(stats["peak_bytes_in_use"] / 2**30, 3)
  if jax.default_backend() == "gpu":
    with contextlib.suppress(Exception):  # a profiler that cannot run must not cost the result
      found["busy_profiler"] = round(busy(run), 4)
  return found


def busy(run: Run) -> float:
  """The fraction of the time in which a kernel runs, while turns follow each other for a second."""
  turns = max(1, min(5, int(1 / timed(run, 1))))
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      for _ in range(turns):
        last = run.advance()
      run.wait(last)
    data = jax.profiler.ProfileData.from_file(str(next(Path(folder).rglob("*.xplane.pb"))))
    streams = (line for plane in data.planes if plane.name.startswith("/device:GPU") for line in plane.lines)
    return covered(
      [
        (e.start_ns, e.start_ns + e.duration_ns)
        for line in streams
        if "Stream" in line.name
        for e in line.events
      ]
    )


def resnet(network: str, **options):
  """A ResNet in bfloat16."""
  return models.make(network, dtype="bfloat16", **options)


def lower_moco(*, network, batch, side, queue, groups=1, augmented=False):
  """MoCo v2; with `augmented` from uint8 images, 1/7 larger than the views."""
  shape = (batch, side * 8 // 7, side * 8 // 7, 3) if augmented else (batch, 2, side, side, 3)
  pixels = random_images(*shape)
  inputs = {"image": (255 * pixels).astype(jnp.uint8)} if augmented else {"views": pixels}
  views = augment.make("moco_v2", views=2, size=side) if augmented else None
  encoder = resnet(network, batch_groups=groups)
  options = dict(optimizer=SGD, augment=views, queue_size=queue, shuffle=groups > 1, **MOCO)
  return lower_step("moco", encoder, inputs, **options)


def lower_simclr(*, network, batch, side):
  """SimCLR on augmented views."""
  inputs = {"views": random_images(batch, 2, side, side, 3)}
  encoder = resnet(network, zero_init=True, kernel_init="fan_in", normalize="none")
  return lower_step("simclr", encoder, inputs, optimizer=LARS, dim=128, temperature=0.1)


def lower_mae(*, network, batch, side, decoder, layers="auto", remat="none"):
  """MAE on augmented images."""
  encoder = models.make(network, layers=layers, remat=remat, dtype="bfloat16")
  inputs = {"image": random_images(batch, side, side, 3)}
  return lower_step("mae", encoder, inputs, optimizer=ADAMW, mask_ratio=0.75, **decoder_options(decoder))


def decoder_options(decoder: tuple[int, int, int]) -> dict:
  return dict(zip(("decoder_width", "decoder_depth", "decoder_heads"), decoder))


def ttt_rotation(*, steps, **sizes):
  """The CIFAR-10 network of configs/pretrain/joint.py with 32 copies."""
  method = methods.make("joint", models.make("preresnet26"), DataSpec(50_000, 10, 128))
  init = jax.jit(method.init)(jax.random.key(0), {"image": jnp.zeros((2, 32, 32, 3))})
  learn = augment.make("padded_crop", views=1)
  return adaptation(method, init, learn, optax.sgd(1e-3), steps=steps, copies=32)


def ttt_mae(*, network, side, decoder, steps, copies, head, layers="auto"):
  """configs/ttt/mae.py:imagenet."""
  heads = dict(zip(("head_width", "head_depth", "head_heads"), head))
  encoder = models.make(network, layers=layers, dtype="bfloat16")
  method = methods.make(
    "mae_probe", encoder, DataSpec(50_000, 1000, 128), **heads, **decoder_options(decoder)
  )
  init = jax.jit(method.init)(jax.random.key(0), {"image": jnp.zeros((2, side, side, 3))})
  rule = optax.sgd(0.005, momentum=0.9)
  return adaptation(method, init, augment.make("none", views=1), rule, steps=steps, copies=copies)


def adaptation(method, init, views, rule, *, steps, copies):
  """Returns (the inner loop, the weights, the parameters that move)."""
  adaptable = method.abilities[Adaptable]
  params = adaptable.params(init.params, init.model_state)
  learn = ttt.make_adapt(adaptable, views, rule, steps=steps, copies=copies)
  return learn, Weights(params, init.model_state), ttt.select_params(params, adaptable.trainable)


def adapted(learn, weights, moving, *, together: int, count: int, side: int) -> Run:
  """Test-time training of `count` images, `together` at once."""
  mesh = parallel.make_mesh(jax.devices()[:1])
  program = ttt.compile_adapt(learn, mesh, together=together, carried=False)
  placed = placement.replicate((weights, moving, jax.random.key(1)), mesh)
  images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
  rows = np.arange(count, dtype=np.int32)
  run = Run(
    lambda: [answer for _, answer in ttt.standard(program, *placed, {"image": images}, rows)],
    lambda answers: answers,
    count,
    {"together": together, "parameters_that_move": sum(leaf.size for leaf in jax.tree.leaves(moving))},
  )
  more = lambda: {"program_gib": round(program.memory() / 2**30, 3), **device_report(run)}
  return run._replace(finish=more)


def standard_ttt(*, together, rounds, alone, steps) -> Run:
  """Standard test-time training of rounds * together images."""
  return adapted(*ttt_rotation(steps=steps), together=together, count=rounds * together, side=32)


def features(*, network, batch, side) -> Run:
  """The encoder in evaluation mode."""
  encoder, images = resnet(network), random_images(batch, side, side, 3)
  weights = jax.jit(encoder.init)(jax.random.key(0), images[:2])
  began = time.perf_counter()
  encode = jax.jit(lambda weights, images: encoder.apply(weights, images)[0]).lower(weights, images).compile()
  details = {"compile_seconds": round(time.perf_counter() - began, 1), **program_memory(encode)}
  run = Run(lambda: encode(weights, images), jax.block_until_ready, batch, details)
  return run._replace(finish=lambda: device_report(run))


def corruptions(*, batch, side, images) -> Run:
  """All fifteen at severity 3, each a program of its own; they are compiled in parallel."""
  pixels, keys = random_images(batch, side, side, 3), jax.random.split(jax.random.key(0), batch)
  table = "imagenet" if side >= 64 else "cifar"

  def compiled(name):
    function = corrupt.make(name, table=table)
    each = lambda keys, pixels: for_each(lambda key, image: function(key, image, 3), keys, pixels)
    return jax.jit(each).lower(keys, pixels).compile()

  began = time.perf_counter()
  with ThreadPoolExecutor(8) as pool:
    programs = dict(zip(corrupt.CORRUPTIONS, pool.map(compiled, corrupt.CORRUPTIONS)))
  seconds = time.perf_counter() - began

  def milliseconds(program) -> float:
    jax.block_until_ready(program(keys, pixels))
    times = []
    for _ in range(5):
      start = time.perf_counter()
      jax.block_until_ready(program(keys, pixels))
      times.append(time.perf_counter() - start)
    return round(1e3 * min(times) / batch, 4)

  run = Run(
    lambda: [program(keys, pixels) for program in programs.values()],
    jax.block_until_ready,
    batch * len(programs),
    {"compile_seconds": round(seconds, 1)},
  )
  each = lambda: {"ms_an_image": {name: milliseconds(program) for name, program in programs.items()}}
  return run._replace(finish=lambda: {**each(), **device_report(run)})


OURS: dict[str, Callable[..., Run]] = {
  "moco_step": lambda **sizes: trained(lower_moco(**sizes)),
  "moco_groups": lambda **sizes: trained(lower_moco(**sizes)),
  "moco_augmented": lambda **sizes: trained(lower_moco(**sizes, augmented=True)),
  "mae_base": lambda **sizes: trained(lower_mae(**sizes)),
  "mae_large": lambda **sizes: trained(lower_mae(**sizes)),
  "mae_large_recipe": lambda **sizes: trained(lower_mae(**sizes)),
  "mae_large_unrolled": lambda **sizes: trained(lower_mae(**sizes)),
  "simclr": lambda **sizes: trained(lower_simclr(**sizes)),
  "ttt": standard_ttt,
  "ttt_8": standard_ttt,
  "ttt_mae": lambda **sizes: adapted(*ttt_mae(**sizes), together=1, count=2, side=sizes["side"]),
  "features": features,
  "corruptions": corruptions,
}

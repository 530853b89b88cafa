"""Compares the memory traffic of two TPU programs for the MoCo v2 step of a ResNet-50: ours and a naive one.

    python tests/benchmarks/moco_traffic.py [--topology v5e:2x2] [--images 128]

Both are only compiled, not run. Their input is two augmented float32 views of each image, on the chip. The
naive program uses Flax's BatchNorm over the whole batch, which GSPMD turns into reductions over all chips,
does not shuffle keys, and holds the queue and both encoders in one replicated state. Ours uses BatchNorm in
groups of 32, among which the keys are shuffled. Traffic is given in MB per image to and from main memory, by
our count (ssl_jax/planning/traffic.py) and by XLA's "bytes accessed". Needs libtpu (extra `tpu`) and takes
minutes. The last line is one JSON object.
"""

import argparse
import functools
import importlib.metadata
import json
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import flax.linen as nn  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402
from jax.sharding import NamedSharding, PartitionSpec  # noqa: E402

from ssl_jax import methods, models, optim, parallel  # noqa: E402
from ssl_jax.core import DataSpec, make_init, make_train_step  # noqa: E402
from ssl_jax.planning import hlo  # noqa: E402
from ssl_jax.planning.topology import open_topology, quiet  # noqa: E402
from ssl_jax.planning.traffic import traffic  # noqa: E402

SIZE, QUEUE, DIM, TEMPERATURE, MOMENTUM = 224, 65536, 128, 0.2, 0.999
SGD = dict(learning_rate=0.03, momentum=0.9, weight_decay=1e-4)


class Naive(nn.Module):
  """ResNet-50 in bfloat16 with the MLP head of MoCo v2."""

  @nn.compact
  def __call__(self, x):
    conv = functools.partial(nn.Conv, use_bias=False, dtype=jnp.bfloat16)
    norm = functools.partial(nn.BatchNorm, use_running_average=False, momentum=0.9, dtype=jnp.bfloat16)
    x = nn.relu(norm()(conv(64, (7, 7), (2, 2), padding=3)(x.astype(jnp.bfloat16))))
    x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    for stage, depth in enumerate((3, 4, 6, 3)):
      for block in range(depth):
        width, stride = 64 * 2**stage, 2 if stage and not block else 1
        y = nn.relu(norm()(conv(width, (1, 1))(x)))
        y = nn.relu(norm()(conv(width, (3, 3), (stride, stride), padding=1)(y)))
        y = norm()(conv(4 * width, (1, 1))(y))
        x = nn.relu(y + (x if block else norm()(conv(4 * width, (1, 1), (stride, stride))(x))))
    x = x.mean((1, 2)).astype(jnp.float32)
    return nn.Dense(DIM)(nn.relu(nn.Dense(2048)(x)))


def naive(mesh, batch):
  """Lowers the step."""
  network, rule = (
    Naive(),
    optax.chain(
      optax.add_decayed_weights(SGD["weight_decay"]), optax.sgd(SGD["learning_rate"], SGD["momentum"])
    ),
  )

  def init():
    query = network.init(jax.random.key(0), jnp.zeros((2, SIZE, SIZE, 3)))
    return {
      "query": query,
      "key": query,
      "optimizer": rule.init(query["params"]),
      "queue": jnp.zeros((QUEUE, DIM)),
      "at": jnp.int32(0),
    }

  def encode(variables, images):
    found, state = network.apply(variables, images, mutable=["batch_stats"])
    return found / jnp.linalg.norm(found, axis=1, keepdims=True), state["batch_stats"]

  def step(state, views):
    slow = jax.tree.map(
      lambda k, q: MOMENTUM * k + (1 - MOMENTUM) * q, state["key"]["params"], state["query"]["params"]
    )
    keys, key_stats = encode({"params": slow, "batch_stats": state["key"]["batch_stats"]}, views[:, 1])
    keys = jax.lax.stop_gradient(keys)

    def loss(params):
      queries, stats = encode({"params": params, "batch_stats": state["query"]["batch_stats"]}, views[:, 0])
      logits = (
        jnp.concatenate([(queries * keys).sum(1, keepdims=True), queries @ state["queue"].T], 1) / TEMPERATURE
      )
      return optax.softmax_cross_entropy_with_integer_labels(
        logits, jnp.zeros(len(logits), jnp.int32)
      ).mean(), stats

    (value, stats), gradient = jax.value_and_grad(loss, has_aux=True)(state["query"]["params"])
    updates, optimizer = rule.update(gradient, state["optimizer"], state["query"]["params"])
    queue = jax.lax.dynamic_update_slice(state["queue"], keys, (state["at"], 0))
    return {
      "query": {"params": optax.apply_updates(state["query"]["params"], updates), "batch_stats": stats},
      "key": {"params": slow, "batch_stats": key_stats},
      "optimizer": optimizer,
      "queue": queue,
      "at": (state["at"] + len(keys)) % QUEUE,
    }, value

  everywhere = NamedSharding(mesh, PartitionSpec())
  state = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), jax.eval_shape(init)
  )
  return jax.jit(step, donate_argnums=0, out_shardings=everywhere).lower(state, batch["views"])


def ours(mesh, batch):
  """Lowers the step."""
  count = batch["views"].shape[0]
  encoder = models.make("resnet50", batch_groups=count // 32, dtype="bfloat16", normalize="none")
  method = methods.make(
    "moco",
    encoder,
    DataSpec(1_281_167, 1000, count),
    dim=DIM,
    mlp=True,
    queue_size=QUEUE,
    momentum=MOMENTUM,
    temperature=TEMPERATURE,
  )
  parts = (
    method,
    lambda key, batch: batch,
    optim.make_optimizer(
      total_steps=100, steps_per_epoch=10, batch_size=count, schedule="constant", **SGD
    ).transform,
  )
  state = jax.eval_shape(make_init(*parts), jax.random.key(0), batch)
  shardings = parallel.state_sharding(state, mesh, "replicate")
  state = jax.tree.map(
    lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), state, shardings
  )
  return parallel.compile_step(make_train_step(*parts), mesh, shardings).lower(state, batch)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--topology", default="v5e:2x2")
  parser.add_argument("--images", type=int, default=128, help="on each chip")
  args = parser.parse_args()
  _, mesh = open_topology(args.topology)
  batch = {
    "views": jax.ShapeDtypeStruct(
      (args.images * mesh.size, 2, SIZE, SIZE, 3), jnp.float32, sharding=parallel.along_data(mesh)
    )
  }
  found = {}
  for name, lower in (("ours", ours), ("naive", naive)):
    with quiet():
      text = lower(mesh, batch).compile().as_text()
    ours_counted, xlas = (count / args.images / 1e6 for count in (traffic(text), hlo.cost(text).accessed))
    found[name] = {
      "megabytes_an_image": round(ours_counted),
      "xla_megabytes_an_image": round(xlas),
      "collectives": sum(row["count"] for row in hlo.collectives(text).values()),
    }
    print(name, found[name], flush=True)
  print(
    json.dumps(
      {
        "benchmark": "moco_traffic",
        "topology": args.topology,
        "images_a_chip": args.images,
        **found,
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "flax", "libtpu")},
      }
    )
  )


if __name__ == "__main__":
  main()

"""MoCo v1 and v2: a query is matched to its key in a queue of keys from a moving average of the network."""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax import losses, parallel
from ssl_jax.abilities import Pyramid
from ssl_jax.core import Aux, Carry, DataSpec, Init, Method, Weights
from ssl_jax.metrics import Mean
from ssl_jax.models import Network, heads, network, readers, stack

ABILITIES = (Pyramid,)


class MocoState(NamedTuple):
  """The state of MoCo besides the query network."""

  ema: Weights  # the key encoder: moving average of the query encoder's parameters, own BatchNorm statistics
  queue: jax.Array  # f32[K, dim], rows of unit norm
  cursor: jax.Array  # i32[]: the row at which the next batch of keys is written


def make(
  encoder: Network,
  data: DataSpec,
  *,
  dim: int = 128,
  mlp: bool = False,
  queue_size: int = 65536,
  momentum: float = 0.999,
  temperature: float = 0.07,
  shuffle: bool = True,
) -> Method:
  """InfoNCE with one positive key and `queue_size` negative keys from the queue.

  The moving average is updated after the optimiser step. The published code updates it before the next
  forward pass, so every forward pass uses the same key encoder in both.

  Args:
    encoder: the image network. The published BatchNorm is over groups of 32 images (batch_groups = batch /
      32). If a step divides the batch into parts, the encoder's groups are those of a part.
    data: `batch_size` must divide `queue_size`. If the queue is longer than `num_examples`, it contains older
      keys of the same image.
    dim: width of a key.
    mlp: use the two-layer head of MoCo v2 instead of a linear layer.
    queue_size: K in the paper.
    momentum: m of the moving average, in [0, 1].
    temperature: positive; 0.07 in v1, 0.2 in v2.
    shuffle: exchange the key images between the BatchNorm groups, so that the batch statistics do not reveal
      which key is the positive one. It has no effect where BatchNorm is global or absent. See
      `exchange_between_groups`.
  Raises: ValueError if an option is out of range, the batch size does not divide the queue size, or the
    groups cannot exchange images; the message names values that work.
  Source: He et al. 2020, algorithm 1; Chen et al. 2020 (v2).
  """
  _check(data, queue_size, momentum, temperature)
  groups = getattr(encoder.module, "batch_groups", 1) if shuffle else 1
  exchange_slices(data.batch_size // data.parts, groups)
  net = stack(encoder, network(heads.MLP(dim) if mlp else heads.Linear(dim)))

  def init(key, batch):
    net_key, queue_key = jax.random.split(key)
    query = net.init(net_key, batch["views"][:, 0])
    queue = losses.unit(jax.random.normal(queue_key, (queue_size, dim)))
    ema = jax.tree.map(jnp.copy, query)  # a copy, because donated buffers must not be shared
    return Init(*query, MocoState(ema, queue, jnp.zeros((), jnp.int32)))

  def keys_of(ema: Weights, images) -> Carry:
    """Returns rows: the keys f32[B, dim], unit norm; means: the BatchNorm statistics of the key encoder."""
    keys, model_state = net.apply(ema, exchange_between_groups(images, groups), train=True)
    return Carry(exchange_between_groups(losses.unit(keys), groups), model_state)

  def loss(params, model_state, extra, batch, key):
    queries, model_state = net.apply(Weights(params, model_state), batch["views"][:, 0], train=True)
    carry = jax.lax.stop_gradient(keys_of(extra.ema, batch["views"][:, 1]))
    values, hits = losses.info_nce(losses.unit(queries), carry.rows, extra.queue, temperature=temperature)
    return values.mean(), Aux(model_state, carry, {"contrast_accuracy": Mean.of(hits)})

  def after_update(extra, params, carry):
    ema = jax.tree.map(lambda k, q: momentum * k + (1 - momentum) * q, extra.ema.params, params)
    queue = jax.lax.dynamic_update_slice(extra.queue, carry.rows, (extra.cursor, jnp.zeros((), jnp.int32)))
    cursor = (extra.cursor + carry.rows.shape[0]) % queue_size
    return MocoState(Weights(ema, carry.means), queue, cursor)

  encode, maps = readers(encoder)
  return Method(init, loss, after_update, encode, {Pyramid: Pyramid(maps)})


def exchange_between_groups(rows: jax.Array, groups: int) -> jax.Array:
  """Exchanges rows [B, ...] between `groups` contiguous BatchNorm groups. A second call restores the order.

  The groups are taken k at a time, and each group is cut into k slices: slice j of group i changes places
  with slice i of group j. `exchange_slices` chooses k, at most 8.

  The published code permutes the batch at random, so that every device sends images to every other device.
  The purpose is only that few pairs of images are in one group both as queries and as keys, because batches
  are random already. Here an image meets 1/k of its group again, and k = 8 corresponds to the published eight
  GPUs. Devices exchange only rows that they hold, in one all-to-all, or nothing if one device holds k groups.
  """
  k = exchange_slices(len(rows), groups)
  cut = rows.reshape(-1, k, k, len(rows) // groups // k, *rows.shape[1:])
  return parallel.constrain_rows(cut.swapaxes(1, 2).reshape(rows.shape))


def exchange_slices(batch: int, groups: int) -> int:
  """Returns k of `exchange_between_groups`: the largest common divisor of the number of groups and their
  size, at most 8.

  Args:
    batch: number of images in the global batch, or in one part of it.
    groups: number of BatchNorm groups; 1: BatchNorm is global or absent, and k is 1.
  Raises: ValueError if there are several groups and the only common divisor up to 8 is 1.
  """
  size = batch // groups
  k = max(k for k in range(1, 9) if size % k == 0 and groups % k == 0)
  if k == 1 < groups:
    raise ValueError(
      f"{groups} BatchNorm groups of {size} images cannot be shuffled: the two numbers have no common divisor"
      " from 2 to 8; use another config.encoder.batch_groups, such as 2 with a batch size that is a multiple"
      " of 4, or config.method.shuffle=False"
    )
  return k


def _check(data: DataSpec, queue_size: int, momentum: float, temperature: float) -> None:
  batch = data.batch_size
  if queue_size < 1 or queue_size % batch:
    below = max(queue_size // batch, 1) * batch
    raise ValueError(
      f"config.method.queue_size {queue_size} is not a multiple of config.batch_size {batch}; "
      f"the nearest queue sizes are {below} and {max(math.ceil(queue_size / batch), 2) * batch}"
    )
  if not 0 <= momentum <= 1:
    raise ValueError(f"config.method.momentum is {momentum}; use a value in [0, 1], such as 0.999")
  if temperature <= 0:
    raise ValueError(
      f"config.method.temperature is {temperature}; use a positive one, such as 0.07 (v1) or 0.2 (v2)"
    )
  if queue_size > data.num_examples:
    logging.getLogger(__name__).warning(
      "The queue of %d keys is longer than the data set of %d images: %.1f older keys of each image are among"
      " its own negatives. Use config.method.queue_size <= %d unless that is intended.",
      queue_size,
      data.num_examples,
      queue_size / data.num_examples,
      data.num_examples // batch * batch,
    )

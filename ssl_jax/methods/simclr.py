"""SimCLR: each view of an image is matched to the other view of it among all views of the global batch."""

from __future__ import annotations

from ssl_jax import losses
from ssl_jax.abilities import Pyramid
from ssl_jax.core import Aux, DataSpec, Init, Method, Weights, keep_extra
from ssl_jax.metrics import Mean
from ssl_jax.models import Network, heads, network, readers, stack

ABILITIES = (Pyramid,)


def make(
  encoder: Network,
  data: DataSpec,
  *,
  dim: int = 128,
  head_layers: int = 2,
  final_bn: bool = True,
  temperature: float = 0.1,
) -> Method:
  """The NT-Xent loss on a projection head. The representation is the output of the encoder, before the head.

  Args:
    encoder: the image network, as published with BatchNorm over the whole batch (batch_groups=1), because
      statistics of a part of the batch may reveal the partner of a view; the runs g_4 and g_8 of
      configs/studies/simclr_temperature.py measure whether they do. Those of the head are of the whole batch.
    data: not used; all methods have the same signature.
    dim: width of the embedding.
    head_layers: 2 in SimCLR v1, 3 in v2.
    final_bn: apply BatchNorm without a shift after the head, as in the released code; False is the formula of
      the paper.
    temperature: positive; 0.1 for ImageNet, 0.5 for long CIFAR-10 runs.
  Raises: ValueError if the temperature is not positive.
  Source: Chen, Kornblith, Norouzi, Hinton 2020, eq. 1 and algorithm 1. The loss is the paper's mean over 2B
    views; the released code sums the two directions, which makes no difference with LARS.
  """
  if temperature <= 0:
    raise ValueError(f"config.method.temperature is {temperature}; use a positive one, such as 0.1")
  net = stack(encoder, network(heads.SimCLRHead(dim, layers=head_layers, final_bn=final_bn)))

  def init(key, batch):
    return Init(*net.init(key, batch["views"][:, 0]))

  def loss(params, model_state, extra, batch, key):
    views = batch["views"]  # [B, 2, H, W, 3]
    flat = views.reshape(-1, *views.shape[2:])
    embeddings, model_state = net.apply(Weights(params, model_state), flat, train=True)
    values, hits = losses.nt_xent(embeddings.reshape(-1, 2, dim), temperature=temperature)
    return values.mean(), Aux(model_state, metrics={"contrast_accuracy": Mean.of(hits)})

  encode, maps = readers(encoder)
  return Method(init, loss, keep_extra, encode, {Pyramid: Pyramid(maps)})

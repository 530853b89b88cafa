"""A reference vision transformer and masked autoencoder: the papers' formulas in numpy, loops and float64."""

import math

import numpy as np

_erf = np.vectorize(math.erf)


def dense(x, p):
  return x @ p["kernel"].astype(np.float64) + p["bias"]


def norm(x, p):
  mean = x.mean(-1, keepdims=True)
  return (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def attention(x, p, heads):
  length, width = x.shape
  query, key, value = np.split(dense(x, p["qkv"]), 3, axis=1)
  out, side = np.zeros_like(x), width // heads
  for h in range(heads):
    cut = slice(h * side, (h + 1) * side)
    scores = query[:, cut] @ key[:, cut].T / math.sqrt(side)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    out[:, cut] = weights / weights.sum(1, keepdims=True) @ value[:, cut]
  return dense(out, p["out"])


def blocks(x, stacked, heads):
  """x f64[T, D] after all blocks; the parameters are stacked, one entry per block."""
  depth = stacked["norm1"]["scale"].shape[0]
  for i in range(depth):
    p = {
      name: {
        k: (v[i] if not isinstance(v, dict) else {a: b[i] for a, b in v.items()}) for k, v in part.items()
      }
      for name, part in stacked.items()
    }
    x = x + attention(norm(x, p["norm1"]), p["attention"], heads)
    hidden = dense(norm(x, p["norm2"]), p["mlp1"])
    x = x + dense(hidden * 0.5 * (1 + _erf(hidden / math.sqrt(2))), p["mlp2"])
  return x


def positions(rows, columns, width):
  table = np.zeros((rows * columns, width))
  for row in range(rows):
    for column in range(columns):
      for k in range(width // 4):
        omega = 10000 ** (-k / (width / 4))
        table[row * columns + column, [k, width // 4 + k]] = (
          math.sin(column * omega),
          math.cos(column * omega),
        )
        table[row * columns + column, [width // 2 + k, 3 * width // 4 + k]] = (
          math.sin(row * omega),
          math.cos(row * omega),
        )
  return table


def patchify(image, patch):
  rows, columns = image.shape[0] // patch, image.shape[1] // patch
  return np.stack(
    [
      image[r * patch : (r + 1) * patch, c * patch : (c + 1) * patch].reshape(-1)
      for r in range(rows)
      for c in range(columns)
    ]
  )


def encode(image, p, heads, patch, visible=None):
  """Tokens f64[1 + K, D] after the last norm, class token first. The image must be normalised already."""
  x = dense(patchify(image, patch).astype(np.float64), p["embed"])
  x = x + positions(image.shape[0] // patch, image.shape[1] // patch, x.shape[1])
  x = x if visible is None else x[visible]
  return norm(blocks(np.concatenate([p["cls"][0], x]), p["blocks"]["block"], heads), p["norm"])


def decode(tokens, p, heads, order, grid):
  """f64[L, outputs] in image order; the tokens are un-shuffled as in the released code."""
  x = dense(tokens, p["embed"])
  full = np.concatenate([x[1:], np.repeat(p["mask"][0], len(order) - len(x) + 1, axis=0)])[np.argsort(order)]
  full = full + positions(*grid, x.shape[1])
  x = blocks(np.concatenate([x[:1], full]), p["blocks"]["block"], heads)
  return dense(norm(x, p["norm"]), p["pixels"])[1:]


def mae_loss(image, params, order, *, visible, patch, encoder_heads, decoder_heads, norm_pix):
  """Mean squared error of the pixels, averaged over the removed patches. `image` is already normalised."""
  grid = image.shape[0] // patch, image.shape[1] // patch
  tokens = encode(image, params["encoder"], encoder_heads, patch, order[:visible])
  predicted = decode(tokens, params["decoder"], decoder_heads, order, grid)
  target = patchify(image, patch).astype(np.float64)
  if norm_pix:
    target = (target - target.mean(1, keepdims=True)) / np.sqrt(target.var(1, ddof=1, keepdims=True) + 1e-6)
  mask = np.ones(len(order))
  mask[order[:visible]] = 0
  return (((predicted - target) ** 2).mean(1) * mask).sum() / mask.sum()

"""What cannot be imported: each check names the tensor that rules a file out, and what to do about it."""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Iterable, Mapping

import numpy as np

from ssl_jax.convert.files import Tensors

LISTED = 5  # at most this many tensors are listed in an error message
BLOCK = r"(decoder_)?blocks\.\d+\."
# (names of tensors that only a variant of the transformer has, what they are, what to do)
VARIANTS = (
  (
    r"dist_token|head_dist\..*",
    "the second class token of a distilled transformer (DeiT)",
    "import the same network without distillation",
  ),
  (r"reg_token|register_tokens", "one of the register tokens", "import the same network without registers"),
  (
    rf"{BLOCK}(ls[12]\.gamma|gamma_[12])",
    "a layer scale",
    "multiply the rows of attn.proj.weight and attn.proj.bias by the first scale of the block and those of "
    "mlp.fc2.weight and mlp.fc2.bias by the second, which computes the same, and leave the scales out",
  ),
  (
    rf"{BLOCK}mlp\.(w\d+|fc1_[gx]|gate\w*)\..*",
    "a gated MLP (SwiGLU)",
    "import a network whose MLPs are mlp.fc1, GELU, mlp.fc2",
  ),
  (
    rf"{BLOCK}attn\.(q|k|v|q_proj|k_proj|v_proj)\..*",
    "separate queries, keys and values",
    "concatenate query, key and value, in this order, to attn.qkv.weight and attn.qkv.bias",
  ),
  (
    r".*(relative_position|rel_pos|rope|freqs_cis).*",
    "relative or rotary positions",
    "import a network whose positions are one table, pos_embed",
  ),
  (
    rf"{BLOCK}attn\.[qv]_bias",
    "biases of queries and values alone",
    "store attn.qkv.bias: q_bias, as many zeros, v_bias",
  ),
  (rf"{BLOCK}(attn|mlp)\.([qk]_)?norm\..*", "a norm inside attention or MLP", "import a network without it"),
  (r"norm_pre\..*", "a norm before the first block", "import a network without it"),
  (r"attn_pool\..*", "attention pooling", "import a network that returns the class token or the mean"),
  (
    r"patch_embed\.(?!proj\.(weight|bias)$).*",
    "a stem of several layers",
    "import a network whose patches are embedded by one layer, patch_embed.proj",
  ),
  (
    r"pre_logits\..*",
    "a layer between the features and the classifier",
    "leave pre_logits.* and head.* out, which imports the encoder alone",
  ),
  (
    r"head\.\d+\..*",
    "a classifier of several layers, such as the BatchNorm and the dense layer of MAE's linear probe",
    "leave head.* out, which imports the encoder alone",
  ),
)


def check_kind(kind: str, tensors: Tensors, patterns: Mapping[str, str]) -> None:
  """Raises ValueError, with a hint, if no tensor has a name that a file of this kind has.

  Args:
    patterns: by kind, a regular expression of the names of which its files have at least one.
  """
  if any(re.match(patterns[kind], name) for name in tensors):
    return
  listed = f"{', '.join(sorted(tensors)[:LISTED])}{', ...' if len(tensors) > LISTED else ''}"
  needed = patterns[kind].replace("\\", "").replace("|", "' or '")
  raise ValueError(
    f"this file is not of --kind={kind}: it has no tensor '{needed}', but {listed or 'no tensors at all'}; "
    + (_prefix(patterns[kind], tensors) or _other_kind(tensors, patterns))
  )


def _prefix(needed: str, tensors: Iterable[str]) -> str:
  """A hint if most names have a prefix without which the file would be of its kind, else ""."""
  if needed.startswith(r"module\.") and any(re.match(needed.removeprefix(r"module\."), n) for n in tensors):
    return "store the tensors with the prefix 'module.' before each name"
  names = list(tensors)
  found = collections.Counter(m[1] for m in (re.match(rf"(.+?\.)(?:{needed})", n) for n in names) if m)
  for prefix in found:
    having = sum(name.startswith(prefix) for name in names)
    if 2 * having > len(names):
      others = "" if having == len(names) else f" and leave the other {len(names) - having} out"
      return (
        f"{having} of its {len(names)} tensors have the prefix {prefix!r}: store them without it{others}, as "
        f"in {{name.removeprefix({prefix!r}): value for name, value in tensors.items()"
        + (f" if name.startswith({prefix!r})}}" if others else "}")
      )
  return ""


def _other_kind(tensors: Tensors, patterns: Mapping[str, str]) -> str:
  fitting = [kind for kind, needed in patterns.items() if any(re.match(needed, name) for name in tensors)]
  if fitting:
    return f"try --kind={' or --kind='.join(fitting)}"
  return f"kinds are {', '.join(patterns)}"


def check_values(tensors: Tensors) -> None:
  """Raises ValueError if a value is not finite in float32, or if a variance is negative."""
  problems = []
  for name, value in tensors.items():
    wrong = value.size - np.isfinite(value).sum() if value.dtype.kind == "f" else 0
    if wrong:
      problems.append(f"{name} has {wrong} of {value.size} values that are NaN or infinite in float32")
    elif re.search(r"(running_var|moving_variance)$", name) and value.size and value.min() < 0:
      problems.append(f"{name} has the negative variance {value.min():.3g}")
  if problems:
    more = f"; and {len(problems) - LISTED} tensors more" if len(problems) > LISTED else ""
    raise ValueError(
      "; ".join(problems[:LISTED])
      + more
      + "; the network computes nothing: take a checkpoint from before its training diverged, or an "
      "undamaged copy of the file"
    )


def required(tensors: Tensors, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
  """The tensor of this name. Raises: ValueError if it is missing or its shape differs; None is any size."""
  if name not in tensors:
    raise ValueError(f"missing {name}; the file is incomplete or of another architecture: store all tensors")
  found = tensors[name].shape
  if len(found) != len(shape) or any(
    not have or want not in (None, have) for want, have in zip(shape, found)
  ):
    expected = ", ".join("N" if size is None else str(size) for size in shape)
    raise ValueError(
      f"{name} has shape {list(found)}, expected [{expected}]; import a file whose tensors have PyTorch's "
      "layout and that is of the kind named"
    )
  return tensors[name]


def check_transformer(tensors: Tensors) -> None:
  """Raises ValueError for a transformer that differs from ViT's, or for one that is incomplete."""
  for pattern, what, cure in VARIANTS:
    names = [name for name in tensors if re.fullmatch(pattern, name)]
    if names:
      raise ValueError(
        f"{names[0]} {list(tensors[names[0]].shape)} is {what}, which no encoder here has; {cure}"
      )
  if "cls_token" not in tensors:
    raise ValueError(
      "missing cls_token: every transformer here has a class token, and without it attention computes "
      "something else; import a network that was trained with one"
    )
  width = required(tensors, "cls_token", (1, 1, None)).shape[-1]
  patch = required(tensors, "patch_embed.proj.weight", (width, 3, None, None)).shape[2:]
  if patch[0] != patch[1]:
    raise ValueError(
      f"patch_embed.proj.weight has patches of {patch[0]} x {patch[1]} pixels; import a network whose "
      "patches are square"
    )
  _check_table(tensors, "pos_embed", width)
  _check_numbers(tensors, "blocks")
  required(tensors, "blocks.0.mlp.fc1.weight", (None, width))


def check_pretrained(tensors: Tensors) -> None:
  """Raises ValueError for a classifier, such as MAE's fine-tuning writes, instead of an encoder."""
  names = [name for name in tensors if name.startswith(("fc_norm.", "head."))]
  if names:
    raise ValueError(
      f"{names[0]} {list(tensors[names[0]].shape)} belongs to a classifier: a fine-tuned network, not a "
      "pre-trained autoencoder; import it with --kind=timm_vit --normalize=imagenet"
    )


def check_decoder(tensors: Tensors) -> None:
  """Raises ValueError if MAE's decoder is incomplete. The transformer must have passed its own check."""
  width = required(tensors, "decoder_embed.weight", (None, tensors["cls_token"].shape[-1])).shape[0]
  required(tensors, "mask_token", (1, 1, width))
  _check_numbers(tensors, "decoder_blocks")
  _check_table(tensors, "decoder_pos_embed", width)
  encoder, decoder = (tensors[name].shape[1] for name in ("pos_embed", "decoder_pos_embed"))
  if encoder != decoder:
    raise ValueError(
      f"decoder_pos_embed has {decoder} positions, but pos_embed has {encoder}; store the table of the "
      "images that the encoder was trained on"
    )


def _check_numbers(tensors: Tensors, blocks: str) -> None:
  numbers = {int(m[1]) for m in (re.match(rf"{blocks}\.(\d+)\.", name) for name in tensors) if m}
  if not numbers:
    raise ValueError(f"missing {blocks}.0: the file has no blocks; store all tensors of the network")
  if numbers != set(range(len(numbers))):
    missing = min(set(range(max(numbers))) - numbers)
    raise ValueError(
      f"missing {blocks}.{missing}, though there is {blocks}.{max(numbers)}; store all blocks, numbered "
      "from 0"
    )


def _check_table(tensors: Tensors, name: str, width: int) -> None:
  """Raises ValueError if the position table is not that of a class token and a square of patches."""
  if name not in tensors:
    raise ValueError(
      f"missing {name}: every transformer here adds a table of positions; import a network that has one"
    )
  table = tensors[name]
  if table.ndim == 3 and table.shape[0] == 1 and table.shape[2] == width:
    count = table.shape[1]
    if count > 1 and math.isqrt(count - 1) ** 2 == count - 1:
      return
    if count and math.isqrt(count) ** 2 == count:
      raise ValueError(
        f"{name} {list(table.shape)} has no position for the class token; put a row of zeros in front: "
        f"np.concatenate([0 * table[:, :1], table], axis=1)"
      )
    raise ValueError(
      f"{name} {list(table.shape)} has {count - 1} positions beside the class token's, which are not those "
      "of a square image; import a network that was trained on square images"
    )
  raise ValueError(
    f"{name} has shape {list(table.shape)}, expected [1, 1 + N, {width}]: the class token's position, then "
    "those of the N patches, row by row; reshape the table, with a row of zeros in front if the class token "
    "has no position"
  )

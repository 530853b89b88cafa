"""The kinds of weight files: for each, which tensors are used and which config describes their network."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.config.checked import nearest
from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.schema import TrainConfig, check
from ssl_jax.convert import detectors
from ssl_jax.convert.files import NOTE, Tensors
from ssl_jax.convert.names import Form
from ssl_jax.convert.refusals import (
  check_decoder,
  check_kind,
  check_pretrained,
  check_transformer,
  check_values,
  required,
)
from ssl_jax.core import DataSpec
from ssl_jax.data.sources import SIZES, TRAIN_SPLITS
from ssl_jax.models import patches, resnet, vit
from ssl_jax.models.normalize import NORMALIZE

COUNTERS = r".*num_batches_tracked"  # counters of PyTorch's BatchNorm, which no computation uses


# What a masked autoencoder predicts -> the option norm_pix of the method.
TARGETS = {"pixels": False, "normalized": True}


class Plan(NamedTuple):
  """How to import a file."""

  config: TrainConfig
  data: DataSpec  # the data that the network was trained on
  form: Form
  tensors: Tensors  # with the names of `names.tensors_of`
  average: Tensors | None = None  # the moving average of the weights, with the same names
  parts: tuple[str, ...] = ()  # the parts of the network that the file holds; () means all
  class_names: tuple[str, ...] = ()  # of the training images; (): unknown


class Options(NamedTuple):
  """What a file itself does not tell. "" and 0 select the usual value of its kind."""

  normalize: str = ""
  heads: int = 0
  classes: int = 0
  target: str = ""  # a key of TARGETS; there is no usual value


Kind = Callable[[Tensors, Options], Plan]


def _without_counters(kind: Kind) -> Kind:
  """The kind for files of which it does not matter whether they hold counters of batches."""
  return lambda tensors, options: kind(
    {name: value for name, value in tensors.items() if not re.fullmatch(COUNTERS, name)}, options
  )


def plan(kind: str, tensors: Tensors, note: dict[str, Any], options: Options) -> Plan:
  """How to import a file of this kind.

  Args:
    note: what `export_weights` stored in the file; {} for any other file.
  Raises: ValueError for an unknown kind, a file of a different kind, or an architecture without an encoder
    here.
  """
  if kind not in KINDS:
    raise ValueError(f"--kind={kind}: no such kind{nearest(kind, KINDS)}")
  if options.normalize and options.normalize not in NORMALIZE:
    raise ValueError(
      f"--normalize={options.normalize}: no such normalization{nearest(options.normalize, NORMALIZE)}"
    )
  for name, number in (("heads", options.heads), ("classes", options.classes)):
    if number < 0:
      raise ValueError(f"--{name}={number}: use a positive number, or 0 for the usual one")
  if options.target:
    _check_target(kind, tensors, options.target)
  check_values(tensors)
  if note:
    own = _own(tensors, note)
    norm_pix = own.config.method.get("norm_pix")
    if options.target and norm_pix != TARGETS[options.target]:
      raise ValueError(
        f"--target={options.target}, but `ssl-jax export` noted in the file that method "
        f"{own.config.method['name']!r} has norm_pix={norm_pix}; leave --target out"
      )
    return own
  check_kind(kind, tensors, {name: needed for name, (_, needed) in KINDS.items()})
  return KINDS[kind][0](tensors, options)


def _check_target(kind: str, tensors: Tensors, target: str) -> None:
  """Raises ValueError for a target that is unknown, or if no decoder is imported."""
  if target not in TARGETS:
    raise ValueError(f"--target={target}: no such target{nearest(target, TARGETS)}")
  if kind != "mae_full" and (kind != "npz" or "mask_token" not in tensors):
    raise ValueError(
      f"--target={target} is what the decoder of a masked autoencoder predicts, and --kind={kind} imports no "
      "decoder from this file; leave --target out, or pass --kind=mae_full"
    )


def _own(tensors: Tensors, note: dict[str, Any]) -> Plan:
  """A file that `export_weights` wrote: its note holds the config."""
  try:
    config = check(TrainConfig, note["config"])
    data, parts = dict(note["data"]), tuple(note["parts"])
    class_names = tuple(data.pop("class_names", ()))
    data = DataSpec(batch_size=config.batch_size, **data)
  except (KeyError, TypeError, AttributeError, ValueError) as error:
    raise ValueError(
      f"its entry {NOTE!r} does not describe a network as `ssl-jax export` does ({type(error).__name__}: "
      f"{error}); export the run again, or remove the entry and name the kind of the tensors"
    ) from error
  if config.encoder["name"] not in (*vit.ENCODERS, *resnet.ENCODERS):
    return Plan(config, data, Form(own=True), tensors, parts=parts, class_names=class_names)
  if config.encoder["name"] in resnet.ENCODERS:
    form = Form(bottleneck="layer1.0.conv3.weight" in tensors, projection="fc.1.running_mean" in tensors)
    return Plan(config, data, form, tensors, parts=parts, class_names=class_names)
  check_transformer(tensors)
  tensors, _ = _positions(tensors, fixed=config.encoder["positions"] == "sincos")
  tensors = {name: value for name, value in tensors.items() if name != "decoder_pos_embed"}
  form = Form(patch=config.encoder["patch"], projection="fc.1.running_mean" in tensors)
  return Plan(config, data, form, tensors, parts=parts, class_names=class_names)


def _moco(tensors: Tensors, options: Options, *, mlp: bool) -> Plan:
  """MoCo's published checkpoints: two encoders under one prefix, and the queue, which only training needs."""
  parts = {
    name: {
      key.removeprefix(f"module.{name}."): value
      for key, value in tensors.items()
      if key.startswith(f"module.{name}.")
    }
    for name in ("encoder_q", "encoder_k")
  }
  rest = [
    key
    for key in tensors
    if not key.startswith(("module.encoder_q.", "module.encoder_k."))
    and key not in ("module.queue", "module.queue_ptr")
  ]
  query, form, encoder = _resnet(parts["encoder_q"], options, "imagenet")
  last = "fc.2.weight" if mlp else "fc.weight"
  if last not in query:
    raise ValueError(
      f"this file is not of --kind=moco_v{1 + mlp}: it has no {last}; try --kind=moco_v{2 - mlp}"
    )
  dim = required(query, last, (None, None)).shape[0]
  config = _config(
    dict(name="moco", dim=dim, mlp=mlp, temperature=0.2 if mlp else 0.07),
    encoder,
    augment=dict(name=f"moco_v{1 + mlp}", views=2, size=224),
  )
  return Plan(
    config, _data(config), form, query | {key: tensors[key] for key in rest}, parts["encoder_k"] or None
  )


def _torchvision(
  tensors: Tensors,
  options: Options,
  *,
  data: str = "imagenet2012",
  size: int = 224,
  normalize: str = "imagenet",
  **changes,
) -> Plan:
  tensors, form, encoder = _resnet(tensors, options, normalize)
  parts, classes = _head(tensors, "fc", options)
  config = _config(dict(name="supervised"), encoder | changes, data=data, size=size)
  return Plan(config, _data(config, classes), form, tensors, parts=parts)


def _resnet(tensors: Tensors, options: Options, normalize: str) -> tuple[Tensors, Form, dict[str, Any]]:
  """(tensors, form, options of the encoder): its depth from the blocks, width, stem from the first layer."""
  blocks = {
    tuple(map(int, m.groups())) for m in (re.match(r"layer(\d+)\.(\d+)\.", name) for name in tensors) if m
  }
  depths = tuple(sum(1 for stage, _ in blocks if stage == s) for s in sorted({stage for stage, _ in blocks}))
  bottleneck, first = (
    "layer1.0.conv3.weight" in tensors,
    required(tensors, "conv1.weight", (None, 3, None, None)),
  )
  names = {
    (made.keywords["depths"], made.keywords["bottleneck"]): name for name, made in resnet.ENCODERS.items()
  }
  if (depths, bottleneck) not in names:
    raise ValueError(
      f"no encoder has {depths} blocks {'with' if bottleneck else 'without'} bottlenecks; there are "
      + ", ".join(f"{name} {d}" for (d, _), name in names.items())
    )
  return (
    tensors,
    Form(bottleneck=bottleneck),
    _named(
      resnet.ENCODERS,
      names[depths, bottleneck],
      width=first.shape[0],
      stem="imagenet" if first.shape[-1] == 7 else "cifar",
      normalize=options.normalize or normalize,
    ),
  )


def _named(encoders: dict[str, functools.partial], name: str, **options) -> dict[str, Any]:
  """The options of an encoder, without those that its name already sets."""
  return {
    "name": name,
    **{key: value for key, value in options.items() if key not in encoders[name].keywords},
  }


def _head(tensors: Tensors, name: str, options: Options) -> tuple[tuple[str, ...], int]:
  """(the parts of the network that the file holds, number of classes)."""
  if f"{name}.weight" not in tensors:
    return ("encoder",), options.classes
  return (), required(tensors, f"{name}.weight", (None, None)).shape[0]


def _timm(tensors: Tensors, options: Options) -> Plan:
  if not options.normalize:
    raise ValueError(
      "transformers differ in the normalization of pixels, and the file does not tell it; pass "
      "--normalize=imagenet (DeiT, fine-tuned MAE) or --normalize=signed (AugReg and the first ViT: [-1, 1])"
    )
  tensors, form, encoder = _vit(tensors, options)
  # timm interpolates positions with antialiasing; a network with fc_norm was fine-tuned by MAE's code.
  encoder["antialias_positions"] = encoder["pool"] != "fc_norm"
  parts, classes = _head(tensors, "head", options)
  config = _config(dict(name="supervised"), encoder)
  return Plan(config, _data(config, classes), form, tensors, parts=parts)


def _mae(tensors: Tensors, options: Options, *, full: bool) -> Plan:
  check_transformer(tensors)
  check_pretrained(tensors)
  if full:
    check_decoder(tensors)
    if not options.target:
      raise ValueError(
        "masked autoencoders predict pixels, or pixels normalized by the mean and deviation of their patch, "
        "and the file does not tell which; pass --target=pixels (mae_visualize_vit_large and all files that "
        "were trained without --norm_pix_loss) or --target=normalized (those trained with --norm_pix_loss)"
      )
  tensors, form, encoder = _vit(tensors, options)
  method = dict(name="mae")
  if full:
    width = tensors["decoder_embed.weight"].shape[0]
    depth = len({m[1] for m in (re.match(r"decoder_blocks\.(\d+)\.", name) for name in tensors) if m})
    # Heads have 32 channels, as published: 16 heads for width 512.
    method |= dict(decoder_width=width, decoder_depth=depth, decoder_heads=max(width // 32, 1))
    method |= dict(norm_pix=TARGETS[options.target])
    tensors = _without_sincos(tensors, "decoder_pos_embed", width)
  config = _config(method, encoder)
  return Plan(config, _data(config), form, tensors, parts=() if full else ("encoder",))


def _vit(tensors: Tensors, options: Options) -> tuple[Tensors, Form, dict[str, Any]]:
  """(tensors, form, options of the encoder), as `_resnet`."""
  check_transformer(tensors)
  count = tensors["pos_embed"].shape[1] - 1
  patch, width = tensors["patch_embed.proj.weight"].shape[-1], tensors["cls_token"].shape[-1]
  depth = len({m[1] for m in (re.match(r"blocks\.(\d+)\.", name) for name in tensors) if m})
  name = next(
    (
      name
      for name, made in vit.ENCODERS.items()
      if made.keywords
      and {
        "width": width,
        "depth": depth,
        "heads": options.heads or made.keywords["heads"],
        "patch": patch,
      }.items()
      >= made.keywords.items()
    ),
    "vit",
  )
  heads = options.heads or vit.ENCODERS[name].keywords.get("heads", 0)
  if not heads:
    raise ValueError(
      f"no published transformer has width {width} and depth {depth}, and the file does not tell the number "
      "of heads; pass --heads=N"
    )
  tensors, sincos = _positions(tensors)
  side = math.isqrt(count)
  return (
    tensors,
    Form(patch=patch),
    _named(
      vit.ENCODERS,
      name,
      width=width,
      depth=depth,
      heads=heads,
      patch=patch,
      image_size=side * patch,
      mlp_ratio=tensors["blocks.0.mlp.fc1.weight"].shape[0] / width,
      positions="sincos" if sincos else "learned",
      pool="fc_norm" if "fc_norm.weight" in tensors else "cls",
      normalize=options.normalize or "imagenet",
    ),
  )


def _positions(tensors: Tensors, fixed: bool | None = None) -> tuple[Tensors, bool]:
  """Converts the position table, [1, 1 + L, D], to one without the class token's position, [L, D].

  The position of the class token is added to the token itself, which computes the same. A table that equals
  the fixed sine-cosine table is removed.

  Args:
    fixed: whether the table is the fixed one; None compares them.
  Returns: (the converted tensors, whether the table is the fixed one).
  """
  table = tensors["pos_embed"]
  tensors = {**tensors, "cls_token": tensors["cls_token"] + table[:, :1], "pos_embed": table[0, 1:]}
  if fixed is None:
    side = math.isqrt(table.shape[1] - 1)
    fixed = (
      side**2 == table.shape[1] - 1
      and np.abs(table[0, 1:] - patches.sincos_positions((side, side), table.shape[2])).max() < 1e-5
    )
  if fixed:
    del tensors["pos_embed"]
  return tensors, bool(fixed)


def _without_sincos(tensors: Tensors, name: str, width: int) -> Tensors:
  """The tensors without a position table. Raises: ValueError if it is not the fixed sine-cosine table."""
  table = tensors[name][0]
  side = math.isqrt(len(table) - 1)
  if (
    np.abs(table[0]).max() > 1e-5
    or np.abs(table[1:] - patches.sincos_positions((side, side), width)).max() > 1e-5
  ):
    raise ValueError(f"{name} is not the fixed sine-cosine table, but the decoder supports no other table")
  return {key: value for key, value in tensors.items() if key != name}


def _npz(tensors: Tensors, options: Options) -> Plan:
  """Files like those of `ssl-jax export`, but without its note, and two published CIFAR-10 networks."""
  if "conv2d/kernel" in tensors:
    return _mlperf_tiny(tensors, options)
  if "linear.weight" in tensors:  # akamaster's ResNets for CIFAR-10
    tensors = {name.replace("linear.", "fc."): value for name, value in tensors.items()}
    return _torchvision(tensors, options, data="cifar10", size=32)
  if "conv1.weight" in tensors:
    return _torchvision(tensors, options)
  return _mae(tensors, options, full=True) if "mask_token" in tensors else _timm(tensors, options)


def _mlperf_tiny(tensors: Tensors, options: Options) -> Plan:
  """The Keras ResNet-8 of MLPerf Tiny.

  Our convolutions have no bias, our BatchNorm has epsilon 1e-5 instead of 1e-3, and our pixels are in [0, 1]
  instead of [0, 255]. So the biases move into the norms that follow, the difference of the epsilons into the
  running variance, and the factor 255 into the first convolution.
  """

  conv = functools.partial(_keras_conv, tensors)
  made, blocks = (
    {},
    (
      ("conv1", "bn1", 0, 0),
      *(
        (f"layer{stage}.0.conv{i}", f"layer{stage}.0.bn{i}", first + i - 1, 2 * stage + i - 2)
        for stage, first in ((1, 1), (2, 3), (3, 6))
        for i in (1, 2)
      ),
    ),
  )
  for layer, norm, number, which in blocks:
    name = f"batch_normalization_{which}" if which else "batch_normalization"
    bias = conv(number)["bias"]
    gamma, beta, mean, variance = (
      required(tensors, f"{name}/{leaf}", bias.shape)
      for leaf in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    made |= {
      f"{layer}.weight": conv(number)["weight"],
      f"{norm}.weight": gamma,
      f"{norm}.bias": beta,
      f"{norm}.running_mean": mean - bias,
      f"{norm}.running_var": variance + np.float32(1e-3 - 1e-5),
    }
  for stage, number in ((2, 5), (3, 8)):
    name, width = f"layer{stage}.0.downsample", len(conv(number)["bias"])
    made |= {
      f"{name}.0.weight": conv(number)["weight"],
      f"{name}.1.weight": np.ones(width, np.float32),
      f"{name}.1.bias": conv(number)["bias"],
      f"{name}.1.running_mean": np.zeros(width, np.float32),
      f"{name}.1.running_var": np.full(width, 1 - 1e-5, np.float32),
    }
  made |= {
    "conv1.weight": made["conv1.weight"] * 255,
    "fc.weight": required(tensors, "dense/kernel", (None, None)).T,
    "fc.bias": required(tensors, "dense/bias", (None,)),
  }
  leaves = "gamma|beta|moving_mean|moving_variance"
  known = re.compile(
    rf"(conv2d(_[1-8])?/(kernel|bias)|batch_normalization(_[1-6])?/({leaves})|dense/(kernel|bias))"
  )
  made |= {name: value for name, value in tensors.items() if not known.fullmatch(name)}
  return _torchvision(made, options, data="cifar10", size=32, normalize="none", padding="same")


def _keras_conv(tensors: Tensors, number: int) -> Tensors:
  """The weight and the bias of a convolution, in PyTorch's layout."""
  name = f"conv2d_{number}" if number else "conv2d"
  kernel = required(tensors, f"{name}/kernel", (None,) * 4)
  return {"weight": kernel.transpose(3, 2, 0, 1), "bias": required(tensors, f"{name}/bias", kernel.shape[3:])}


def _detector(tensors: Tensors, options: Options) -> Plan:
  """torchvision's Faster R-CNN or Mask R-CNN on a ResNet with a pyramid, with its own rules.

  The numbers of its classes are kept, because the softmax is over all of them: the published networks know 90
  categories of COCO, of which 80 have names and images.
  """
  tensors, shape = detectors.read(tensors)
  prefix = detectors.BODY
  body = {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
  _, form, encoder = _resnet(body, options, "imagenet")
  method = dict(name="detection", kind="fpn", masks=shape.masks, convention="torchvision")
  config = _config(
    method | dict(channels=shape.channels, hidden=shape.hidden),
    encoder,
    data="coco",
    size=640,
    augment=dict(name="resize_shorter", views=1),
    host=dict(name="image_instances" if shape.masks else "image_boxes", max_boxes=100),
  )
  names = detectors.coco_names() if shape.classes == detectors.COCO_NUMBERS else ()
  return Plan(config, _data(config, shape.classes), form._replace(detector=True), tensors, class_names=names)


def _config(
  method: dict[str, Any],
  encoder: dict[str, Any],
  *,
  data: str = "imagenet2012",
  size: int = 224,
  augment: dict[str, Any] | None = None,
  host: dict[str, Any] | None = None,
) -> TrainConfig:
  size = encoder.get("image_size", size)
  return check(
    TrainConfig,
    recipe(
      TrainConfig,
      method=method,
      encoder=encoder,
      augment=augment or dict(name="none", views=1, size=size),
      optimizer=dict(learning_rate=0.1),
      batch_size=256,
      epochs=1.0,
      data=dict(name=data, split=TRAIN_SPLITS.get(data, "train"), size=size),
      **dict(host=host) if host else {},
    ),
  )


def _data(config: TrainConfig, classes: int = 0) -> DataSpec:
  images, usual = SIZES[config.data.name]
  return DataSpec(images, classes or usual, config.batch_size)


_KINDS: dict[str, tuple[Kind, str]] = {
  "moco_v1": (functools.partial(_moco, mlp=False), r"module\.encoder_q\."),
  "moco_v2": (functools.partial(_moco, mlp=True), r"module\.encoder_q\."),
  "mae": (functools.partial(_mae, full=False), r"patch_embed\."),
  "mae_full": (functools.partial(_mae, full=True), r"decoder_embed\."),
  "timm_vit": (_timm, r"patch_embed\."),
  "torchvision_resnet": (_torchvision, r"conv1\.weight"),
  "npz": (_npz, r"conv1\.weight|conv2d/kernel|patch_embed\."),
}
KINDS: dict[str, tuple[Kind, str]] = {  # with a pattern: a file of the kind has a tensor of such a name
  **{name: (_without_counters(kind), pattern) for name, (kind, pattern) in _KINDS.items()},
  "torchvision_detection": (_detector, r"roi_heads\.box_predictor\."),
}

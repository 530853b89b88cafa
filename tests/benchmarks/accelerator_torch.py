"""PyTorch's side of the cases of accelerator.py: name -> a function of the case's sizes that returns a Run.

bfloat16 by autocast, channels-last images, scaled_dot_product_attention, TF32 for float32 as in JAX, cuDNN's
search for the fastest convolutions, fused optimisers; eagerly or under torch.compile. Nothing
here imports JAX.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
import torchvision
from accelerator_measure import Run
from mae_torch import Adapting, Mae, Shape, training
from moco_torch import Moco, Simclr, moco_head
from torch import nn
from torchvision.transforms import v2
from ttt_torch import one_after_another
from ttt_torch import together as vmapped

VITS = {"vit_tiny": Shape(192, 12, 3), "vit_base": Shape(768, 12, 12), "vit_large": Shape(1024, 24, 16)}


def device() -> torch.device:
  """The accelerator if there is one, with the fast settings. `with device():` makes tensors there. It is not
  the default device, because torchvision draws its random numbers on that one and reads them back.
  """
  torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
  torch.backends.cudnn.benchmark = True
  torch.manual_seed(0)
  return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wrapper(side: str) -> Callable[[nn.Module], nn.Module]:
  """torch.compile for the side "compiled"; on CPU without code generation, which takes minutes there."""
  if side != "compiled":
    return lambda net: net
  return functools.partial(torch.compile, backend="inductor" if torch.cuda.is_available() else "eager")


def run_of(advance: Callable, images: int, **details) -> Run:
  """A Run that waits for the card and reports the allocator's peak."""

  def wait(last):
    if torch.cuda.is_available():
      torch.cuda.synchronize()
    return last

  def report() -> dict:
    last = wait(advance())
    found = {"loss": round(float(last), 4)} if isinstance(last, torch.Tensor) and last.ndim == 0 else {}
    if torch.cuda.is_available():
      found["device"] = torch.cuda.get_device_name()
      found["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 3)
    return found

  return Run(advance, wait, images, details, report)


def parameters(net: nn.Module) -> int:
  return sum(leaf.numel() for leaf in net.parameters())


def trunk(network: str) -> tuple[nn.Module, int]:
  """(torchvision's ResNet without its last layer, the width of its features)."""
  resnet = torchvision.models.resnet
  net = (
    resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1]) if network == "resnet10" else getattr(resnet, network)()
  )
  width, net.fc = net.fc.in_features, nn.Identity()
  return net, width


def random_images(count: int, side: int) -> torch.Tensor:
  """f32[count, 3, side, side], channels last."""
  return torch.rand(count, 3, side, side).contiguous(memory_format=torch.channels_last)


def moco(side_of: str, *, network, batch, side, queue, augmented=False) -> Run:
  """MoCo v2, from views or from uint8 images."""
  with device():
    body, width = trunk(network)
    net = nn.Sequential(body, moco_head(width))
    peer = Moco(net, queue=queue, momentum=0.999, temperature=0.2, wrap=wrapper(side_of))
    first, second = random_images(batch, side), random_images(batch, side)
    images = (255 * random_images(batch, side * 8 // 7)).to(torch.uint8)
  details = {"parameters": parameters(net)}
  if not augmented:
    return run_of(lambda: peer.step(first, second, autocast=True), batch, **details)
  views = all_at_once if side_of == "one_draw" else one_by_one
  view = moco_view(side)
  return run_of(lambda: peer.step(views(view, images), views(view, images), autocast=True), batch, **details)


def moco_view(side: int) -> v2.Transform:
  """The augmentation of MoCo v2 from torchvision's transforms v2."""
  blur = v2.GaussianBlur(max(3, side // 10 // 2 * 2 + 1), (0.1, 2.0))
  return v2.Compose(
    [
      v2.ToDtype(torch.float32, scale=True),
      v2.RandomResizedCrop(side, scale=(0.2, 1.0), antialias=True),
      v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
      v2.RandomGrayscale(p=0.2),
      v2.RandomApply([blur], p=0.5),
      v2.RandomHorizontalFlip(),
      v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
  )


def one_by_one(view: v2.Transform, images: torch.Tensor) -> torch.Tensor:
  """A view of each image with its own random numbers, as the method needs."""
  return torch.stack([view(image) for image in images]).contiguous(memory_format=torch.channels_last)


def all_at_once(view: v2.Transform, images: torch.Tensor) -> torch.Tensor:
  """Views with the same random numbers for the whole batch: less than the method needs."""
  return view(images).contiguous(memory_format=torch.channels_last)


def simclr(side_of: str, *, network, batch, side) -> Run:
  """SimCLR on augmented views."""
  with device():
    body, width = trunk(network)
    peer, views = Simclr(body, width, temperature=0.1, wrap=wrapper(side_of)), random_images(2 * batch, side)
  count = sum(leaf.numel() for leaf in peer.lars.params)
  return run_of(lambda: peer.step(views, autocast=True), batch, parameters=count)


def mae(side_of: str, *, network, batch, side, decoder, layers="") -> Run:
  """MAE on augmented images."""
  model = autoencoder(network, side, decoder)
  images = torch.randn(batch, 3, side, side, device=model.cls.device)
  step = training(model, images, autocast=True, wrap=wrapper(side_of))
  return run_of(step, batch, parameters=parameters(model))


def autoencoder(network: str, side: int, decoder) -> Mae:
  with device():
    return Mae(VITS[network], Shape(*decoder), side)


def ttt_mae(side_of: str, *, network, side, decoder, steps, copies, head, layers="") -> Run:
  """Test-time training by masked autoencoding, one image after another."""
  model = autoencoder(network, side, decoder)
  peer = Adapting(model, Shape(*head), 1000, steps=steps, copies=copies, wrap=wrapper(side_of))
  image = torch.randn(3, side, side, device=model.cls.device)
  moving = sum(leaf.numel() for leaf in peer.moving)
  return run_of(lambda: peer.adapt(image), 1, parameters_that_move=moving)


def ttt(side_of: str, *, together: int, rounds: int, alone: int, steps: int) -> Run:
  """Standard test-time training; float32 with TF32, as ours."""
  count = together if side_of == "together" else alone
  images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)
  if side_of == "together":
    advance = vmapped(images, steps, device(), count)(count)
  else:
    advance = one_after_another(images, steps, device(), channels_last=False)(count)
  return run_of(advance, count, together=count if side_of == "together" else 1)


def features(side_of: str, *, network, batch, side) -> Run:
  """The encoder in evaluation mode."""
  with device() as card:
    net = wrapper(side_of)(trunk(network)[0].eval().to(memory_format=torch.channels_last))
    images = random_images(batch, side)

  def advance():
    with torch.inference_mode(), torch.autocast(card.type, torch.bfloat16):
      return net(images)

  return run_of(advance, batch)


THEIRS: dict[str, Callable[..., Run]] = {
  "moco_step": moco,
  "moco_augmented": functools.partial(moco, augmented=True),
  "mae_base": mae,
  "mae_large": mae,
  "simclr": simclr,
  "ttt": ttt,
  "ttt_mae": ttt_mae,
  "features": features,
}

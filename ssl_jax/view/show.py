"""Draws the picture that `ssl-jax show PICTURE` names."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ssl_jax.config.checked import nearest
from ssl_jax.log.waiting import waiting
from ssl_jax.view.adaptation import show_adaptation
from ssl_jax.view.augmentations import show_augmentations
from ssl_jax.view.colours import show_colours
from ssl_jax.view.corruptions import show_corruptions
from ssl_jax.view.errors import show_errors
from ssl_jax.view.pretext_task import show_pretext_task
from ssl_jax.view.reconstructions import show_reconstructions
from ssl_jax.view.request import PictureRequest


class Picture(NamedTuple):
  """A picture that the command can draw."""

  draw: Callable[[PictureRequest, pathlib.Path], None]  # writes a PNG to the path
  needs: tuple[str, ...]  # the fields of the request that must not be empty
  example: str  # a command that draws it


PICTURES = {
  "adaptation": Picture(
    show_adaptation,
    ("workdir", "config"),
    "ssl-jax show adaptation --workdir=runs/probe --config=configs/ttt/mae.py:cifar10",
  ),
  "augmentations": Picture(
    show_augmentations,
    ("config",),
    "ssl-jax show augmentations --config=configs/pretrain/moco_sample.py --output=views.png",
  ),
  "colours": Picture(show_colours, ("workdir",), "ssl-jax show colours --workdir=runs/colorization"),
  "corruptions": Picture(
    show_corruptions,
    ("config",),
    "ssl-jax show corruptions --config=configs/pretrain/moco_sample.py --output=corruptions.png",
  ),
  "errors": Picture(
    show_errors,
    ("evaluations",),
    "ssl-jax show errors --evaluations=joint=A.json,online=B.json --output=errors.png",
  ),
  "reconstructions": Picture(
    show_reconstructions,
    ("workdir",),
    "ssl-jax show reconstructions --workdir=runs/mae --ratios=0.75,0.8,0.85,0.95",
  ),
  "task": Picture(
    show_pretext_task,
    ("config",),
    "ssl-jax show task --config=configs/pretrain/jigsaw_cifar10_cpu.py --output=task.png",
  ),
}
# By method, the picture of what its network restores of test images; a report includes it.
RESTORED = {"mae": "reconstructions", "colorization": "colours"}


def show(words: Sequence[str], request: PictureRequest) -> pathlib.Path:
  """Draws the picture whose name is the only one of `words`.

  Returns: the path of the PNG.
  Raises: ValueError for an unknown picture, a request that lacks what the picture needs, an output that is
    not a .png file, and whatever the picture itself raises.
  """
  if len(words) != 1 or words[0] not in PICTURES:
    raise ValueError(f"`ssl-jax show` takes one picture{nearest(' '.join(words), PICTURES)}")
  picture = PICTURES[words[0]]
  for need in picture.needs:
    if not getattr(request, need):
      raise ValueError(f"`ssl-jax show {words[0]}` needs --{need}; for example {picture.example}")
  if not request.output and not request.workdir:
    raise ValueError("--output is missing; name the .png file to write")
  name = words[0] + ("-over-epochs" if request.over_epochs else "")
  output = pathlib.Path(request.output or pathlib.Path(request.workdir) / "pictures" / f"{name}.png")
  if output.suffix != ".png":
    raise ValueError(f"--output={output} is not a .png file; give it that suffix")
  with waiting(f"drawing {words[0]}"):
    picture.draw(request, output)
  print(f"wrote {output}")
  return output

"""The cases of accelerator.py, the most important first, with their sizes and time limits."""

from __future__ import annotations

from typing import Any, NamedTuple

DECODER = (512, 8, 16)  # width, depth, heads
# GFLOP of an image, from XLA's cost analysis of our step lowered without recomputation, by
# `python tests/benchmarks/accelerator.py --count`; augmentation does not count. An image of MoCo and SimCLR
# has two views, and one of test-time training all its copies and steps.
GFLOP = {
  "moco_step": 31.83,
  "moco_groups": 31.83,
  "moco_augmented": 31.83,
  "mae_large": 124.79,
  "mae_large_recipe": 124.79,
  "mae_large_unrolled": 124.79,
  "mae_base": 58.5,
  "simclr": 47.55,
  "ttt": 96.95,
  "ttt_8": 96.95,
  "ttt_mae": 291_938.0,
  "features": 7.957,
}


class Work(NamedTuple):
  """What both sides of a comparison compute."""

  name: str
  full: dict[str, Any]  # sizes on an accelerator; both sides take them as keyword arguments
  tiny: dict[str, Any]  # sizes that replace them with --tiny
  sides: tuple[str, ...]  # "ours" first


class Case(NamedTuple):
  """One side of a comparison, which runs in a process of its own."""

  work: Work
  side: str
  limit: float  # seconds

  @property
  def least(self) -> float:
    """Seconds without which it need not begin."""
    return LEAST.get(self.side, 15)

  @property
  def name(self) -> str:
    return f"{self.work.name}/{self.side}"


RESNET, SMALL = dict(network="resnet50", batch=256, side=224), dict(network="resnet10", batch=4, side=32)
VIT = dict(network="vit_tiny", batch=2, side=32, decoder=(32, 1, 2), layers="scan")
LARGE = dict(network="vit_large", batch=128, side=224, decoder=DECODER)
ALL, EXTRA = ("ours", "eager", "compiled"), ("ours",)
WORK = {
  work.name: work
  for work in (
    # The step of configs/pretrain/moco.py:d with BatchNorm over the batch, which is PyTorch's on one card.
    Work("moco_step", RESNET | dict(queue=65536), SMALL | dict(queue=64), ALL),
    Work("mae_large", LARGE, VIT, ALL),
    # uint8 images of 256 pixels, augmented inside the step.
    Work("moco_augmented", RESNET | dict(queue=65536), SMALL | dict(queue=64), (*ALL, "one_draw")),
    Work("mae_base", dict(network="vit_base", batch=256, side=224, decoder=DECODER), VIT, ALL),
    Work("simclr", RESNET, SMALL, ALL),
    # "together" is torch.func.vmap over `together` images; eager adapts to `alone` images one after another.
    Work(
      "ttt",
      dict(together=64, rounds=1, alone=4, steps=10),
      dict(together=1, rounds=2, alone=1, steps=1),
      ("ours", "eager", "together"),
    ),
    Work(
      "ttt_mae",
      dict(network="vit_large", side=224, decoder=DECODER, steps=20, copies=128, head=(768, 12, 12)),
      dict(
        network="vit_tiny", side=32, decoder=(32, 1, 2), layers="scan", steps=2, copies=2, head=(32, 1, 2)
      ),
      ALL,
    ),
    Work("features", RESNET | dict(batch=512), SMALL, ALL),
    # Severity 3 of each; "host" is imagecorruptions in one process a core.
    Work(
      "corruptions", dict(batch=128, side=224, images=2), dict(batch=2, side=64, images=1), ("ours", "host")
    ),
    # Two random crops of each JPEG; neither side uses the accelerator.
    Work(
      "input",
      dict(files=1024, width=500, height=375, side=224, batch=128, seconds=6.0),
      dict(files=24, width=100, height=75, side=32, batch=4, seconds=0.3),
      ("ours", "dataloader"),
    ),
    # Variants of ours, which tell what else could be done: fewer images at once; the recipe's recomputation;
    # layers one after another instead of in a loop; the recipe's eight BatchNorm groups and shuffled keys.
    Work("ttt_8", dict(together=8, rounds=4, alone=1, steps=10), dict(together=1, rounds=1, steps=1), EXTRA),
    Work("mae_large_recipe", LARGE | dict(remat="dots"), VIT, EXTRA),
    Work("mae_large_unrolled", LARGE | dict(layers="unroll"), VIT, EXTRA),
    Work("moco_groups", RESNET | dict(queue=65536, groups=8), SMALL | dict(queue=64, groups=2), EXTRA),
  )
}
LIMITS = {
  "ours": 100,
  "eager": 50,
  "compiled": 150,
  "together": 60,
  "one_draw": 50,
  "host": 60,
  "dataloader": 40,
}
LONG = {
  "moco_step/ours": 140,
  "simclr/ours": 120,
  "ttt/ours": 150,
  "corruptions/ours": 150,
  "ttt_mae/ours": 120,
}
LEAST = {"ours": 25, "compiled": 45}  # seconds: with less time left the case does not begin; else 15
LAST = {"compiled": 0.5, "one_draw": 1}  # after the other sides: they compile for long, or matter less


def cases() -> list[Case]:
  """All cases in the order in which they run."""
  found = [
    Case(work, side, LONG.get(f"{work.name}/{side}", LIMITS[side]))
    for work in WORK.values()
    for side in work.sides
  ]
  return sorted(found, key=lambda case: (case.work.sides == EXTRA) + LAST.get(case.side, 0))


def ratios(records: dict[str, dict]) -> dict[str, float]:
  """{"moco_step/eager": our images a second divided by theirs, on the same card}; above 1 ours is faster."""
  found = {}
  for name, record in records.items():
    work, side = name.split("/")
    ours = records.get(f"{work}/ours", {})
    speeds = [row.get("images_per_second") for row in (ours, record)]
    if side != "ours" and all(speeds) and ours.get("card") == record.get("card"):
      found[name] = round(speeds[0] / speeds[1], 2)
  return found

r"""SimCLR's pairs of augmentations: crops with colours are best.

Command:   ssl-jax study --study=configs/studies/simclr_pairs.py --output=DIR --data_dir=TFDS
Claim:     On ImageNet, ResNet-50, no pair of transforms comes near crop + colour, and no single transform
           suffices [Chen et al. 2020, figure 5].
Runs:      The first view is changed by the transforms, the second is not; both begin as one crop of half the
           image or more. The order within a pair is the one named. Each run takes one epoch of 20,000 images
           by a network of width 8, so that the 28 runs of a seed take about half an hour on two cores.
Measured:  docs/results.md
"""

import itertools

from ssl_jax import define_study

TRANSFORMS = ("crop", "cutout", "jitter", "sobel", "noise", "blur", "rotate")


def get_study():
  runs = {
    "+".join(names): dict(config="pretrain/moco_cifar10_cpu.py", overrides=changed(names))
    for count in (1, 2)
    for names in itertools.combinations(TRANSFORMS, count)
  }
  best = "crop+jitter"
  return define_study(
    runs=runs,
    evaluations=dict(
      probe=dict(config="transfer/small.py", overrides=measured(), scalars=("linear_probe.top1", "knn.top1"))
    ),
    comparisons=[(best, name) for name in runs if name != best],
    picture="matrix",
  )


def changed(names):
  """The overrides of a run."""
  return {
    "method": dict(name="simclr", dim=64, temperature=0.2),
    "encoder.width": 8,
    "encoder.batch_groups": 1,
    "augment": dict(name="study", views=2, size=32, transforms=names, one_crop=True, scale=(0.5, 1.0)),
    "optimizer.warmup_epochs": 0.1,
    "data.split": "train[:20000]",
    "epochs": 1.0,
    "log_every": 50,
  }


def measured():
  """The overrides of the evaluation."""
  return {"baselines": (), "data.train_split": "train[:20000]", "tasks.linear_probe.epochs": 50}

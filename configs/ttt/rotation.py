"""Test-time training with rotation under the fifteen corruptions, standard and online, beside the network without it.

Command:   ssl-jax evaluate --config=configs/ttt/rotation.py:VARIANT --workdir=DIR
           for a DIR of configs/pretrain/joint.py; --config.tasks.standard.examples=200 takes the first images only
           --config.tasks.online.released=FOLDER reads CIFAR-10-C's or ImageNet-C's own files instead
Variants:  cifar10, imagenet: as published; cifar10_cpu: six corruptions, 200 images (standard) and 1,000 (online).
Expected:  mean over the fifteen at severity 5: CIFAR-10 error without 33.3, standard 31.0, online 20.4; ImageNet accuracy without 14.4,
           standard 16.4, online 33.7 [Sun et al. 2020].
Measured:  docs/results.md
"""

from ssl_jax import EvaluateConfig, recipe

VARIANTS = ("cifar10", "imagenet", "cifar10_cpu")
SOME = ("clean", "gaussian_noise", "defocus_blur", "snow", "contrast", "pixelate", "jpeg_compression")


def get_config(variant="cifar10"):
  if variant not in VARIANTS:
    raise ValueError(f"configs/ttt/rotation.py has no variant {variant!r}; known: {', '.join(VARIANTS)}")
  if variant == "imagenet":
    # online takes the images in a random order: they lie class by class, and a stream of one class would teach that class
    return recipe(
      EvaluateConfig,
      tasks=_tasks(copies=64),
      augment=dict(name="supervised", scale=(0.08, 1.0)),
      data=dict(test_split="validation", crop_ratio=0.875, shuffle=True, workers=16),
    )
  tasks = _tasks(copies=32)
  if variant == "cifar10_cpu":
    tasks["standard"] |= dict(corruptions=SOME, examples=200)
    tasks["online"] |= dict(corruptions=SOME, examples=1000)
  return recipe(
    EvaluateConfig, tasks=tasks, augment=dict(name="padded_crop", pad=4, flip=True), data=dict(cache=True)
  )


def _tasks(**shared):
  # plain SGD: no momentum, no decay
  return dict(
    standard=dict(task="ttt", mode="standard", steps=10, learning_rate=0.001, **shared),
    online=dict(task="ttt", mode="online", steps=1, learning_rate=0.001, **shared),
  )

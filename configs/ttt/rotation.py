"""Test-time training with rotation prediction under 15 corruptions.

Standard and online test-time training are measured beside the same network without it.

Command:   ssl-jax evaluate --config=configs/ttt/rotation.py:VARIANT --workdir=DIR
           DIR is a run of configs/pretrain/joint.py. --config.tasks.standard.examples=200 uses only the
           first 200 images. --config.tasks.online.released=FOLDER reads the released files of CIFAR-10-C or
           ImageNet-C.
Variants:  cifar10, imagenet: as published. cifar10_cpu: six corruptions, 200 images (standard) and 1,000
           (online).
Expected:  Mean over the fifteen corruptions at severity 5. CIFAR-10, error: 33.3 without, 31.0 standard,
           20.4 online. ImageNet, accuracy: 14.4 without, 16.4 standard, 33.7 online [Sun et al. 2020].
Measured:  docs/results.md
"""

from ssl_jax import EvaluateConfig, check_variant, recipe

VARIANTS = ("cifar10", "imagenet", "cifar10_cpu")
SOME = ("clean", "gaussian_noise", "defocus_blur", "snow", "contrast", "pixelate", "jpeg_compression")


def get_config(variant="cifar10"):
  check_variant(variant, VARIANTS, __file__)
  if variant == "imagenet":
    # The test images are sorted by class, so they are shuffled: on a stream of images of one class, online
    # training would make the network predict that class.
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
  # plain SGD, without momentum or weight decay
  return dict(
    standard=dict(task="ttt", mode="standard", steps=10, learning_rate=0.001, **shared),
    online=dict(task="ttt", mode="online", steps=1, learning_rate=0.001, **shared),
  )

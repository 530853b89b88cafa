"""Baselines of test-time training: learning from own predictions.

Norm adaptation, Tent, MEMO and self-training of single images and along streams, beside the same network
without them. The network needs a classifier and no task of its own; "norm" needs BatchNorm.

Command:   ssl-jax evaluate --config=configs/ttt/baselines.py:VARIANT --workdir=DIR
           DIR is a run of configs/pretrain/joint.py or supervised.py, or an imported classifier.
           --config.tasks.memo.examples=200 uses only the first 200 images.
Variants:  cifar10, imagenet: MEMO's step sizes as published, with crops and flips where it takes AugMix as
           well; the others' for one image instead of a batch. cifar10_cpu: 100 images each. With the suffix
           _group: without norm adaptation, for networks without BatchNorm.
Expected:  CIFAR-10-C, mean error. ResNet-26 at severity 5, batches of 200 images of a corruption: 40.8
           without, 17.3 norm adaptation, 14.3 Tent [Wang et al. 2021, recalled]. Single images, ResNet-26
           with GroupNorm: 22.5 without, 19.6 MEMO [Zhang et al. 2022, recalled].
Measured:  docs/results.md
"""

from ssl_jax import EvaluateConfig, check_variant, recipe

VARIANTS = ("cifar10", "imagenet", "cifar10_cpu", "cifar10_group", "imagenet_group", "cifar10_cpu_group")


def get_config(variant="cifar10"):
  check_variant(variant, VARIANTS, __file__)
  name = variant.removesuffix("_group")
  tasks = _tasks(imagenet=name == "imagenet")
  if variant.endswith("_group"):
    tasks = {task: options for task, options in tasks.items() if not task.startswith("norm")}
  if name == "imagenet":
    # The test images are sorted by class, so they are shuffled for the streams, see rotation.py.
    return recipe(
      EvaluateConfig,
      tasks=tasks,
      augment=dict(name="supervised", scale=(0.08, 1.0)),
      data=dict(test_split="validation", crop_ratio=0.875, shuffle=True, workers=16),
    )
  if name == "cifar10_cpu":
    for options in tasks.values():
      options["examples"] = 100
  return recipe(
    EvaluateConfig, tasks=tasks, augment=dict(name="padded_crop", pad=4, flip=True), data=dict(cache=True)
  )


def _tasks(*, imagenet):
  copies = 64 if imagenet else 32
  # MEMO, section 4.1. Tent's Adam at 0.001 and SGD at 0.00025 are for many steps on batches of 200 and 64
  # images; one step of 0.001 on a single image of CIFAR-10 changes nothing, and 0.005 does.
  memo = dict(copies=copies, learning_rate=0.00025 if imagenet else 0.005)
  adam = dict(copies=copies, optimizer="adamw", learning_rate=0.005, momentum=0.9)
  tent = dict(copies=copies, learning_rate=0.00025) if imagenet else adam
  # Along streams of single images these rates ruin a network: an error of 79 to 93% over 200 images. Adam's
  # state is new for each image, so that every step has the size of its rate, and SGD takes its place.
  slow = dict(mode="online", copies=copies)
  return dict(
    norm=_task("norm", copies=1),
    tent=_task("tent", **tent),
    memo=_task("memo", **memo),
    self_training=_task("self_training", **memo),
    # Along a stream the statistics are a moving average over the last `prior` images.
    norm_online=_task("norm", mode="online", copies=1, prior=64.0),
    tent_online=_task("tent", learning_rate=4e-6 if imagenet else 3e-5, **slow),
    memo_online=_task("memo", learning_rate=2.5e-7 if imagenet else 5e-6, **slow),
    self_training_online=_task("self_training", learning_rate=5e-6 if imagenet else 1e-4, **slow),
  )


def _task(objective, **options):
  return dict(task="ttt", objective=objective, steps=1, **options)

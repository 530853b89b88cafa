"""What test-time training is compared with, under 15 corruptions: a network learns from its own predictions.

Norm adaptation, Tent, MEMO and self-training of single images, and the first three along streams, beside the
same network without them. The network needs a classifier and no task of its own; "norm" needs BatchNorm.

Command:   ssl-jax evaluate --config=configs/ttt/baselines.py:VARIANT --workdir=DIR
           DIR is a run of configs/pretrain/joint.py or supervised.py, or an imported classifier.
           --config.tasks.memo.examples=200 uses only the first 200 images.
Variants:  cifar10, imagenet: step sizes as published, with crops and flips where MEMO takes AugMix as well.
           cifar10_cpu: 200 images each. With the suffix _group: without norm adaptation, for networks without
           BatchNorm.
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
      options["examples"] = 200
  return recipe(
    EvaluateConfig, tasks=tasks, augment=dict(name="padded_crop", pad=4, flip=True), data=dict(cache=True)
  )


def _tasks(*, imagenet):
  copies = 64 if imagenet else 32
  # MEMO, section 4.1: one step. Tent, section 4: Adam at 0.001 on CIFAR-10, SGD at 0.00025 on ImageNet, whose
  # batches are of 200 and 64 images.
  memo = dict(copies=copies, learning_rate=0.00025 if imagenet else 0.005)
  adam = dict(optimizer="adamw", learning_rate=0.001, momentum=0.9)
  sgd = dict(optimizer="sgd", learning_rate=0.00025, momentum=0.9)
  tent = dict(copies=copies, **(sgd if imagenet else adam))
  return dict(
    norm=_task("norm", copies=1),
    tent=_task("tent", **tent),
    memo=_task("memo", **memo),
    self_training=_task("self_training", **memo),
    norm_online=_task("norm", mode="online", copies=1),
    tent_online=_task("tent", mode="online", **tent),
    memo_online=_task("memo", mode="online", **memo),
  )


def _task(objective, **options):
  return dict(task="ttt", objective=objective, steps=1, **options)

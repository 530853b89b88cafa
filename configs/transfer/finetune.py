r"""End-to-end fine-tuning: supervised training of a pre-trained encoder.

Command:   ssl-jax train --config=configs/transfer/finetune.py:VARIANT --config.start.workdir=DIR \
             --workdir=DIR2
           ssl-jax evaluate --config=configs/transfer/classification.py --workdir=DIR2
Variants:  vit_base, vit_large, vit_huge: ImageNet, as published for MAE. resnet50: ImageNet with simpler
           settings, for any ResNet-50 trained with this library. ucf101: frames of UCF101's first split,
           for the CaffeNet of configs/pretrain/shuffle_and_learn.py, with a schedule of ours; measure with
           configs/transfer/classification.py:clips. cifar10_cpu, sample: small, for two CPU cores. Without
           --config.start.workdir the same training starts from scratch.
Hardware:  Published on 128 TPU v3 cores.
Expected:  ImageNet top-1 83.6 (base), 85.9 (large), 86.9 (huge) after 1600 epochs of pre-training [He et
           al. 2022]. Where the paper and the released code differ (learning rate, layer decay, drop path),
           the values are those of the code.
"""

from ssl_jax import check_variant, recipe

# learning rate (ImageNet: per 256 images), epochs, layer decay, drop path
VARIANTS = {
  "vit_base": (5e-4, 100.0, 0.65, 0.1),
  "vit_large": (1e-3, 50.0, 0.75, 0.2),
  "vit_huge": (1e-3, 50.0, 0.75, 0.3),
  "resnet50": (0.01, 30.0, 1.0, 0.0),
  "ucf101": (0.001, 300.0, 1.0, 0.0),
  "cifar10_cpu": (1e-3, 4.0, 0.75, 0.0),
  "sample": (1e-3, 4.0, 0.75, 0.0),
}


def get_config(variant="vit_base"):
  check_variant(variant, VARIANTS, __file__)
  if variant == "resnet50":
    return _resnet50(*VARIANTS[variant])
  if variant == "ucf101":
    return _ucf101(*VARIANTS[variant])
  small = {"cifar10_cpu": _cifar10_cpu, "sample": _sample}
  return small[variant](*VARIANTS[variant]) if variant in small else _vit(variant, *VARIANTS[variant])


def _vit(name, learning_rate, epochs, layer_decay, drop_path):
  return recipe(
    method=dict(name="supervised", label_smoothing=0.1, mixup=0.8, cutmix=1.0, head_scale=2e-5),
    encoder=dict(
      name=name, pool="fc_norm", positions="sincos_trained", drop_path=drop_path, dtype="bfloat16"
    ),
    augment=dict(name="finetune", views=1, size=224),
    optimizer=dict(
      name="adamw",
      learning_rate=learning_rate,
      scaling="linear",
      final_learning_rate=1e-6,
      layer_decay=layer_decay,
      momentum=0.9,
      beta2=0.999,
      weight_decay=0.05,
      weight_decay_on="weights",
      schedule="cosine",
      warmup_epochs=5.0,
    ),
    data=dict(name="imagenet2012", split="train", size=224, crop="host", interpolation="bicubic", workers=16),
    checkpoint=dict(every_steps=1000, keep=2),
    batch_size=1024,
    epochs=epochs,
    log_every=100,
  )


def _resnet50(learning_rate, epochs, layer_decay, drop_path):
  return recipe(
    method=dict(name="supervised", label_smoothing=0.1),
    encoder=dict(name="resnet50", dtype="bfloat16"),
    augment=dict(name="supervised", views=1, size=224),
    optimizer=dict(
      name="nesterov",
      learning_rate=learning_rate,
      scaling="linear",
      layer_decay=layer_decay,
      momentum=0.9,
      weight_decay=1e-4,
      schedule="cosine",
    ),
    data=dict(name="imagenet2012", split="train", size=224, crop="host", workers=16),
    checkpoint=dict(every_steps=5000, keep=2),
    batch_size=256,
    epochs=epochs,
    log_every=100,
  )


def _ucf101(learning_rate, epochs, layer_decay, drop_path):
  """One random frame of each clip in an epoch."""
  return recipe(
    method=dict(name="supervised"),
    encoder=dict(name="caffenet", norm="deep", affine=False, dropout=0.5),
    host=dict(name="frame"),
    augment=dict(name="supervised", views=1, size=227, scale=(0.5, 1.0)),
    optimizer=dict(
      name="sgd",
      learning_rate=learning_rate,
      momentum=0.9,
      weight_decay=5e-4,
      layer_decay=layer_decay,
      schedule="step",
      milestones=(200.0,),
    ),
    data=dict(name="video_folder", split="trainlist01", size=256, workers=16),
    checkpoint=dict(every_steps=2000, keep=2),
    batch_size=128,
    epochs=epochs,
    log_every=50,
  )


def _cifar10_cpu(learning_rate, epochs, layer_decay, drop_path):
  """Fine-tunes encoders of configs/pretrain/mae_cifar10_cpu.py."""
  return recipe(
    method=dict(name="supervised", label_smoothing=0.1, head_scale=2e-5),
    encoder=dict(name="vit_tiny", patch=4, normalize="cifar10", pool="fc_norm", positions="sincos_trained"),
    augment=dict(name="supervised", views=1, size=32, scale=(0.5, 1.0), method="bicubic"),
    optimizer=dict(
      name="adamw",
      learning_rate=learning_rate,
      layer_decay=layer_decay,
      weight_decay=0.05,
      weight_decay_on="weights",
      schedule="cosine",
      warmup_epochs=0.3,
    ),
    data=dict(name="cifar10", split="train[:10000]", size=32, cache=True),
    checkpoint=dict(every_steps=100, keep=1),
    batch_size=128,
    epochs=epochs,
    log_every=25,
  )


def _sample(learning_rate, epochs, layer_decay, drop_path):
  """Fine-tunes encoders of configs/pretrain/mae_sample.py."""
  return recipe(
    method=dict(name="supervised", label_smoothing=0.1, head_scale=2e-5),
    encoder=dict(
      name="vit",
      width=128,
      depth=6,
      heads=4,
      patch=4,
      normalize="eurosat",
      pool="fc_norm",
      positions="sincos_trained",
    ),
    augment=dict(name="supervised", views=1, size=32, scale=(0.5, 1.0), method="bicubic"),
    optimizer=dict(
      name="adamw",
      learning_rate=learning_rate,
      layer_decay=layer_decay,
      weight_decay=0.05,
      weight_decay_on="weights",
      schedule="cosine",
      warmup_epochs=0.5,
    ),
    data=dict(name="sample", split="train", size=32, cache=True),
    checkpoint=dict(every_steps=500, keep=1),
    batch_size=128,
    epochs=epochs,
    log_every=20,
  )

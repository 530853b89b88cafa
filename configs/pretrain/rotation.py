r"""Rotation prediction on ImageNet, ResNet-50, one or four rotations each.

Command:   ssl-jax train --config=configs/pretrain/rotation.py:VARIANT --workdir=DIR \
             --config.data.data_dir=TFDS
           ssl-jax evaluate --config=configs/transfer/layers.py --workdir=DIR
Variants:  four: each image in all four rotations. one: each image in one random rotation.
Expected:  Linear probe top-1 47.0 (four, 70 epochs, batch size 128; best layer 54.2) and 48.2 (one, 105
           epochs) [as published by MMSelfSup and VISSL]. AlexNet, linear probes on conv1 to conv5: 18.8
           31.7 38.7 38.2 36.5 [Gidaris et al. 2018].
"""

from ssl_jax import check_variant, recipe

# epochs, batch size, learning rate, its scaling with the batch size, milestones (epochs), warm-up epochs
VARIANTS = {
  "four": (70.0, 128, 0.2, "none", (30.0, 50.0), 5.0),
  "one": (105.0, 256, 0.1, "linear", (30.0, 60.0, 90.0, 100.0), 0.0),
}


def get_config(variant="four"):
  check_variant(variant, VARIANTS, __file__)
  epochs, batch_size, learning_rate, scaling, milestones, warmup_epochs = VARIANTS[variant]
  return recipe(
    method=dict(name="rotation", copies=variant),
    encoder=dict(name="resnet50", dtype="bfloat16"),
    augment=dict(name="supervised", views=1, size=224),
    optimizer=dict(
      name="sgd",
      learning_rate=learning_rate,
      scaling=scaling,
      momentum=0.9,
      weight_decay=1e-4,
      schedule="step",
      milestones=milestones,
      warmup_epochs=warmup_epochs,
    ),
    data=dict(name="imagenet2012", split="train", size=224, crop="host", workers=16),
    checkpoint=dict(every_steps=5000, keep=3),
    batch_size=batch_size,
    epochs=epochs,
    log_every=100,
  )

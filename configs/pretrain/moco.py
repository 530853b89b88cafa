"""MoCo v1, MoCo v2 and the ablation between them on ImageNet, ResNet-50.

Command:   ssl-jax train --config=configs/pretrain/moco.py:d --workdir=DIR --config.data.data_dir=TFDS
Hardware:  Published on 8 V100 GPUs: 53 hours for 200 epochs of MoCo v1.
Expected:  Linear probe top-1 as listed beside each variant [He et al. 2020; Chen et al. 2020, table 1].
Batch:     The learning rate is scaled linearly with --config.batch_size=N. Keep N / batch_groups at 32, and
           keep the queue size a multiple of N.
"""

from ssl_jax import check_variant, recipe

#        MLP    aug+   cosine epochs  linear probe top-1
VARIANTS = {
  "v1": (False, False, False, 200),  # 60.6
  "a": (True, False, False, 200),  # 66.2
  "b": (False, True, False, 200),  # 63.4
  "c": (True, True, False, 200),  # 67.3
  "d": (True, True, True, 200),  # 67.5: MoCo v2
  "e": (True, True, True, 800),  # 71.1
}


def get_config(variant="d"):
  check_variant(variant, VARIANTS, __file__)
  mlp, aug_plus, cosine, epochs = VARIANTS[variant]
  return recipe(
    method=dict(
      name="moco", dim=128, mlp=mlp, queue_size=65536, momentum=0.999, temperature=0.2 if mlp else 0.07
    ),  # 0.2 was tuned with the MLP head
    encoder=dict(name="resnet50", batch_groups=8, dtype="bfloat16"),
    augment=dict(name="moco_v2" if aug_plus else "moco_v1", views=2, size=224),
    optimizer=dict(
      name="sgd",
      learning_rate=0.03,
      scaling="linear",
      momentum=0.9,
      weight_decay=1e-4,
      schedule="cosine_by_epoch" if cosine else "step",
      milestones=(120.0, 160.0),
      decay=0.1,
    ),
    data=dict(name="imagenet2012", split="train", size=224, crop="host", workers=16),
    checkpoint=dict(every_steps=5000, keep=3, keep_every=100_000),
    batch_size=256,
    epochs=float(epochs),
    log_every=100,
  )

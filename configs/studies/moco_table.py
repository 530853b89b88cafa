r"""MoCo's ablation: MLP head, augmentation, cosine schedule, epochs.

Command:   ssl-jax study --study=configs/studies/moco_table.py --output=DIR --data_dir=TFDS
Claims:    On ImageNet, ResNet-50, linear probe top-1: v1 60.6, (a) 66.2, (b) 63.4, (c) 67.3, (d) 67.5, (e)
           71.1, supervised 76.5 [He et al. 2020; Chen et al. 2020, table 1].
Runs:      configs/pretrain/moco_cifar10_cpu.py for 4 epochs, (e) for 12. The temperature is 0.2 with the MLP
           head and 0.07 without, as published; a_0.07 and d_0.07 are (a) and (d) with 0.07. no_blur is (d)
           without the blur, which hides much of an image of 32 pixels; plain_crops has crops and flips alone.
Measured:  docs/results.md
"""

from ssl_jax import define_study

MOCO, EPOCHS = "pretrain/moco_cifar10_cpu.py", 4.0
CROPS = dict(views=2, size=32, scale=(0.2, 1.0))
#    MLP    aug+   cosine epochs
ROWS = {
  "v1": (False, False, False, EPOCHS),
  "a": (True, False, False, EPOCHS),
  "b": (False, True, False, EPOCHS),
  "c": (True, True, False, EPOCHS),
  "d": (True, True, True, EPOCHS),
  "e": (True, True, True, 3 * EPOCHS),
}


def get_study():
  measured = dict(
    config="transfer/small.py", overrides={"baselines": ()}, scalars=("knn.top1", "linear_probe.top1")
  )
  compared = measured | dict(overrides={"baselines": ("pixels", "untrained")})
  runs = {name: dict(config=MOCO, overrides=row(*values)) for name, values in ROWS.items()}
  d = runs["d"]["overrides"]
  no_blur = dict(name="simclr", strength=0.5, blur=False, definition="pt", **CROPS)
  supervised = {
    "method": dict(name="supervised"),
    "augment": dict(name="supervised", views=1, size=32, scale=(0.2, 1.0)),
    "encoder.batch_groups": 1,
    "epochs": EPOCHS,
  }
  runs |= {
    "a_0.07": dict(config=MOCO, overrides=runs["a"]["overrides"] | {"method.temperature": 0.07}),
    "d_0.07": dict(config=MOCO, overrides=d | {"method.temperature": 0.07}),
    "no_blur": dict(config=MOCO, overrides=d | {"augment": no_blur}),
    "plain_crops": dict(config=MOCO, overrides=d | {"augment": dict(name="supervised", **CROPS)}),
    "supervised": dict(config=MOCO, overrides=supervised, evaluations=("with_baselines",)),
  }
  for run in runs.values():
    run.setdefault("evaluations", ("alone",))
  return define_study(
    runs=runs,
    evaluations=dict(alone=measured, with_baselines=compared),
    comparisons=[
      ("a", "v1"),
      ("a_0.07", "v1"),
      ("b", "v1"),
      ("c", "a"),
      ("c", "b"),
      ("d", "c"),
      ("d_0.07", "d"),
      ("e", "d"),
      ("no_blur", "d"),
      ("d", "plain_crops"),
      ("supervised", "e"),
      ("e", "supervised:pixels"),
      ("e", "supervised:untrained"),
    ],
  )


def row(mlp, aug_plus, cosine, epochs):
  """The overrides of a row of the published table."""
  return {
    "method.mlp": mlp,
    "method.temperature": 0.2 if mlp else 0.07,
    "augment": dict(name="moco_v2" if aug_plus else "moco_v1", **CROPS),
    "optimizer.schedule": "cosine_by_epoch" if cosine else "step",
    "optimizer.milestones": (0.6 * epochs, 0.8 * epochs),
    "epochs": epochs,
  }

"""MoCo on the embedded sample beside its baselines: an example.

Command:   ssl-jax study --study=configs/studies/sample.py --output=runs/study
Data:      7,992 images, which come with the package.
Runs:      moco, the recipe of launch/quickstart.sh, and three runs that differ in one thing: the views of
           MoCo v2 as published, with blur, grey images and strong colours; the linear head of MoCo v1; its
           temperature of 0.07. Three seeds of each, three minutes a run on two cores.
Measured:  docs/results.md
"""

from ssl_jax import define_study

RECIPE = "pretrain/moco_sample.py"


def get_study():
  published = dict(name="moco_v2", views=2, size=32, scale=(0.2, 1.0))
  runs = {
    "moco": {},
    "published_views": {"augment": published},
    "linear_head": {"method.mlp": False},
    "temperature_0.07": {"method.temperature": 0.07},
  }
  scalars = ("knn.top1", "linear_probe.top1", "low_shot.top1")
  small = dict(config="transfer/small.py", overrides={"baselines": ()}, scalars=scalars)
  compared = dict(config="transfer/small.py", scalars=scalars)
  baselines = ("pixels", "colour_statistics", "untrained")
  return define_study(
    runs={
      name: dict(config=RECIPE, overrides=changes, evaluations=("small" if changes else "beside_baselines",))
      for name, changes in runs.items()
    },
    evaluations=dict(beside_baselines=compared, small=small),
    comparisons=[("moco", f"moco:{name}") for name in baselines]
    + [("moco", name) for name, changes in runs.items() if changes],
  )

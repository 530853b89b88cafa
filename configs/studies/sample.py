"""What MoCo v2 adds to MoCo v1, on the embedded sample: an example.

Command:   ssl-jax study --study=configs/studies/sample.py --output=runs/study
Data:      8,000 images, which come with the package.
Runs:      moco_v2, and three runs that each lack one change of MoCo v2: the MLP head, the stronger
           augmentation, the temperature of 0.2. Two seeds of each.
"""

from ssl_jax import define_study

RECIPE = "pretrain/moco_sample.py"


def get_study():
  crops = dict(views=2, size=32, scale=(0.6, 1.0))
  return define_study(
    runs=dict(
      moco_v2=dict(config=RECIPE, overrides={"epochs": 4.0}),
      linear_head=dict(config=RECIPE, overrides={"epochs": 4.0, "method.mlp": False}),
      v1_augmentation=dict(
        config=RECIPE, overrides={"epochs": 4.0, "augment": dict(name="moco_v1", **crops)}
      ),
      temperature_007=dict(config=RECIPE, overrides={"epochs": 4.0, "method.temperature": 0.07}),
    ),
    evaluations=dict(knn=dict(config="transfer/knn.py", overrides={"baselines": ()}, scalars=("knn.top1",))),
    comparisons=[("moco_v2", "linear_head"), ("moco_v2", "v1_augmentation"), ("moco_v2", "temperature_007")],
    seeds=(0, 1),
  )

r"""Test-time training with rotation on fifteen corruptions.

Command:   ssl-jax study --study=configs/studies/robustness.py --output=DIR --data_dir=TFDS
Claims:    Mean error at severity 5: joint training 33.3 is a little better than plain training 34.6, standard
           test-time training better than joint 31.0, online best 20.4; on clean images nothing is lost [Sun
           et al. 2020, CIFAR-10-C].
Runs:      configs/pretrain/joint.py:cifar10_cpu and cifar10_cpu_plain for 12 epochs; 500 test images of each
           corruption online, 100 by standard test-time training, which takes ten times as long an image.
Measured:  docs/results.md
"""

from ssl_jax import define_study

EPOCHS, SEVERITY = 12.0, 5
MODES = ("standard", "online")


def get_study():
  images = {"standard": 100, "online": 500}
  learning = {f"tasks.{mode}.examples": images[mode] for mode in MODES}
  learning |= {f"tasks.{mode}.corruptions": () for mode in MODES}  # all fifteen, and clean images
  frozen = {"tasks.robustness.examples": 500, "tasks.robustness.severities": (SEVERITY,)}
  joint = "pretrain/joint.py:cifar10_cpu"
  return define_study(
    runs=dict(
      plain=dict(config=f"{joint}_plain", overrides={"epochs": EPOCHS}, evaluations=("frozen",)),
      joint=dict(config=joint, overrides={"epochs": EPOCHS}),
    ),
    evaluations=dict(
      frozen=dict(
        config="transfer/robustness.py:cifar10",
        overrides=frozen,
        scalars=("robustness.error", "robustness.clean_error"),
      ),
      learning=dict(
        config="ttt/rotation.py:cifar10_cpu",
        overrides=learning,
        scalars=tuple(
          f"{mode}.{name}" for mode in MODES for name in ("error_without", "error", "gain", "clean")
        ),
      ),
    ),
    comparisons=[("joint", "plain")],
  )

r"""SimCLR's temperature, batch size and groups of BatchNorm.

Command:   ssl-jax study --study=configs/studies/simclr_temperature.py --output=DIR --data_dir=TFDS
Claims:    A temperature in between is best: on ImageNet, ResNet-50, linear probe top-1, 59.7 (0.05), 64.4
           (0.1), 60.7 (0.5), 58.0 (1). Larger batches are better, most in short trainings [Chen et al. 2020,
           table 5 and figure 9]. Statistics of BatchNorm in groups, which save most collectives of a step on
           many chips (configs/pretrain/simclr.py:100_grouped), cost nothing (ours).
Runs:      4 epochs of 45,000 images. t_TEMPERATURE has batches of 256, b_BATCH the temperature 0.2; the
           learning rate grows with the square root of the batch. g_GROUPS is t_0.2 with the statistics of
           256 / GROUPS images and their second views.
Measured:  docs/results.md
"""

from ssl_jax import define_study

TEMPERATURES, BATCHES, GROUPS = (0.05, 0.2, 0.5, 1.0), (32, 64, 128), (4, 8)


def get_study():
  runs = {f"t_{temperature:g}": run(temperature, 256) for temperature in TEMPERATURES}
  runs |= {f"b_{batch}": run(0.2, batch) for batch in BATCHES}
  runs |= {f"g_{groups}": run(0.2, 256, groups) for groups in GROUPS}
  measured = dict(
    config="transfer/small.py",
    overrides={"baselines": (), "tasks.linear_probe.epochs": 50},
    scalars=("knn.top1", "linear_probe.top1"),
  )
  return define_study(
    runs=runs,
    evaluations=dict(small=measured),
    comparisons=[
      ("t_0.2", "t_0.05"),
      ("t_0.2", "t_0.5"),
      ("t_0.2", "t_1"),
      ("b_64", "b_32"),
      ("b_128", "b_64"),
      ("t_0.2", "b_128"),
      ("t_0.2", "b_32"),
      ("t_0.2", "g_4"),
      ("t_0.2", "g_8"),
    ],
  )


def run(temperature, batch, groups=1):
  """SimCLR with the network and the augmentation of the CIFAR-10 recipes."""
  overrides = {
    "method": dict(name="simclr", dim=128, temperature=temperature),
    "encoder.batch_groups": groups,
    "augment": dict(name="simclr", views=2, size=32, scale=(0.2, 1.0), strength=0.5, blur=False),
    "optimizer.learning_rate": 0.08 * (batch / 128) ** 0.5,
    "batch_size": batch,
    "epochs": 4.0,
  }
  return dict(config="pretrain/moco_cifar10_cpu.py", overrides=overrides)

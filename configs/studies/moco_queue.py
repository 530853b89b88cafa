r"""The length K of MoCo's queue: more negatives are better.

Command:   ssl-jax study --study=configs/studies/moco_queue.py --output=DIR --data_dir=TFDS
Claim:     On ImageNet, ResNet-50, linear probe top-1 rises with K: 54.7 (256), 56.4 (512), 57.5 (1,024), 59.0
           (4,096), 60.4 (16,384), 60.6 (65,536); end-to-end, whose K is that of a batch, 54.7, 56.4, 57.3 at
           256, 512, 1,024 [He et al. 2020, figure 3].
Runs:      configs/pretrain/moco_cifar10_cpu.py for 4 epochs; K from one batch to 44,928, an epoch's keys.
           end_to_end: both views of a batch of 128 pass the trained encoder and the other images of the batch
           are the negatives, 254 of them, as in SimCLR, with MoCo's head, temperature and augmentation.
Measured:  docs/results.md
"""

from ssl_jax import define_study

MOCO, EPOCHS = "pretrain/moco_cifar10_cpu.py", 4.0
QUEUES = (128, 512, 2048, 8192, 44_928)


def get_study():
  runs = {
    f"K_{size}": dict(config=MOCO, overrides={"method.queue_size": size, "epochs": EPOCHS}) for size in QUEUES
  }
  end_to_end = {"method": dict(name="simclr", dim=128, temperature=0.1), "epochs": EPOCHS}
  runs["end_to_end"] = dict(config=MOCO, overrides=end_to_end)
  measured = dict(
    config="transfer/small.py", overrides={"baselines": ()}, scalars=("knn.top1", "linear_probe.top1")
  )
  return define_study(
    runs=runs,
    evaluations=dict(small=measured),
    comparisons=[
      ("K_512", "K_128"),
      ("K_2048", "K_512"),
      ("K_8192", "K_2048"),
      ("K_44928", "K_8192"),
      ("K_8192", "K_128"),
      ("end_to_end", "K_128"),
      ("K_8192", "end_to_end"),
    ],
  )

r"""Masked autoencoders: mask ratio and length of the training.

Command:   ssl-jax study --study=configs/studies/mae.py:VARIANT --output=DIR --data_dir=TFDS
           ssl-jax show reconstructions --workdir=DIR/runs/ratio_0.75/seed0
           ssl-jax show reconstructions --over-epochs --workdir=DIR/runs/epochs_8/seed0
Variants:  ratio, epochs.
Claims:    ratio: a high one is best: on ImageNet, ViT-L, 75% for linear probes, 40 to 80% for fine-tuning
           [He et al. 2022, figure 5]. epochs: longer training is better and does not saturate: on ImageNet,
           ViT-L, fine-tuned 82.3 (100 epochs), 83.3 (200), 84.3 (400), 84.9 (800), 85.1 (1600); linear probe
           57.3, 64.4, 69.7, 73.5, 75.1 [figure 7].
Runs:      configs/pretrain/mae_cifar10_cpu.py:small for 3 epochs (ratio) or for 1 to 8, each with its own
           schedule; each network is then fine-tuned on 10,000 labelled images for 2 epochs. scratch is
           fine-tuned from random weights.
Measured:  docs/results.md
"""

from ssl_jax import check_variant, define_study

VARIANTS = ("ratio", "epochs")
RATIOS, BEST, EPOCHS = (0.25, 0.5, 0.75, 0.9), "0.75", (1, 2, 4, 8)
SMALL = dict(name="vit", width=128, depth=6, heads=4, patch=4, normalize="cifar10")
TUNED = {"encoder": dict(SMALL, pool="fc_norm", positions="sincos_trained"), "epochs": 2.0}


def get_study(variant="ratio"):
  check_variant(variant, VARIANTS, __file__)
  if variant == "ratio":
    others = [f"{ratio:g}" for ratio in RATIOS if f"{ratio:g}" != BEST]
    runs = {f"ratio_{ratio:g}": pretrained({"method.mask_ratio": ratio, "epochs": 3.0}) for ratio in RATIOS}
    pairs = [(BEST, other) for other in others]
  else:
    runs = {f"epochs_{count}": pretrained({"epochs": float(count)}) for count in EPOCHS}
    pairs = [(str(2 * count), str(count)) for count in EPOCHS[:-1]]
  runs |= {name.replace(variant, "tuned"): tuned(name) for name in list(runs)}
  runs["scratch"] = tuned("")
  comparisons = [(f"{kind}_{one}", f"{kind}_{two}") for kind in (variant, "tuned") for one, two in pairs]
  comparisons += [(name, "scratch") for name in runs if name.startswith("tuned")]
  return define_study(runs=runs, evaluations=evaluations(), comparisons=comparisons)


def evaluations():
  """Frozen features of the encoders, and the accuracy of the fine-tuned networks."""
  return dict(
    frozen=dict(
      config="transfer/small_mae.py",
      overrides={"baselines": (), "data.train_split": "train[:10000]"},
      scalars=("linear_probe.top1", "knn.top1"),
    ),
    tuned=dict(config="transfer/classification.py", scalars=("classification.top1",)),
  )


def pretrained(overrides):
  """A masked autoencoder."""
  return dict(config="pretrain/mae_cifar10_cpu.py:small", overrides=overrides, evaluations=("frozen",))


def tuned(start):
  """The fine-tuning of the network of the run `start`; "": from random weights."""
  return dict(config="transfer/finetune.py:cifar10_cpu", overrides=TUNED, start=start, evaluations=("tuned",))

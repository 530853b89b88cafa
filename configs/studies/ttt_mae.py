r"""Test-time training with masked autoencoders on six corruptions.

Command:   ssl-jax study --study=configs/studies/ttt_mae.py:VARIANT --output=DIR --data_dir=TFDS
Variants:  accelerator: a ViT-Ti/4, 220 epochs; about five minutes of training a seed on one H100, then an
           hour of test-time training on two CPU cores or minutes there. cpu: a smaller network, 20 and 8
           epochs, which learns too little for test-time training to gain anything: docs/results.md.
Claim:     Test-time training with masked autoencoding is better than none under every corruption: on
           ImageNet-C, ViT-L, severity 5, mean accuracy 43.3 against 32.1 [Gandelsman et al. 2022].
Measured:  docs/results.md
"""

from ssl_jax import check_variant, define_study

VARIANTS = ("accelerator", "cpu")
CORRUPTIONS = ("clean", "gaussian_noise", "defocus_blur", "snow", "contrast", "pixelate", "jpeg_compression")


def get_study(variant="accelerator"):
  check_variant(variant, VARIANTS, __file__)
  evaluated = dict(evaluations=("knn",))
  if variant == "accelerator":
    runs = dict(mae=dict(config="pretrain/mae_cifar10.py", **evaluated))
    probe = "transfer/vit_probe.py:cifar10"
  else:
    small = "pretrain/mae_cifar10_cpu.py:small"
    runs = dict(
      unnormalised=dict(config=small, **evaluated),
      mae=dict(config=f"{small}_norm_pix", start="unnormalised", **evaluated),
    )
    probe = "transfer/vit_probe.py:cifar10_cpu"
  runs["probe"] = dict(config=probe, start="mae", evaluations=("learning",))
  return define_study(
    runs=runs,
    evaluations=dict(
      knn=dict(config="transfer/knn.py", overrides={"baselines": ()}, scalars=("knn.top1",)),
      learning=dict(
        config="ttt/mae.py:cifar10",
        scalars=tuple(f"ttt.{name}" for name in ("error_without", "error", "gain", *CORRUPTIONS)),
      ),
    ),
  )

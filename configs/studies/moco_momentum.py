r"""The momentum of MoCo's key encoder: a slowly moving one is better.

Command:   ssl-jax study --study=configs/studies/moco_momentum.py --output=DIR --data_dir=TFDS
Claim:     On ImageNet, ResNet-50, linear probe top-1 with m = 0: the loss oscillates and does not fall; 0.9:
           55.2; 0.99: 57.8; 0.999: 59.0; 0.9999: 58.9 [He et al. 2020, section 4.1].
Runs:      configs/pretrain/moco_cifar10_cpu.py for 6 epochs, 2,106 steps: m = 0.999 averages over the last
           thousand of them, of ImageNet's 200 epochs over a thousandth.
Measured:  docs/results.md
"""

from ssl_jax import define_study

MOMENTA = (0.0, 0.9, 0.99, 0.999)


def get_study():
  runs = {
    f"m_{momentum:g}": dict(
      config="pretrain/moco_cifar10_cpu.py", overrides={"method.momentum": momentum, "epochs": 6.0}
    )
    for momentum in MOMENTA
  }
  measured = dict(
    config="transfer/small.py", overrides={"baselines": ()}, scalars=("knn.top1", "linear_probe.top1")
  )
  return define_study(
    runs=runs,
    evaluations=dict(small=measured),
    comparisons=[("m_0.9", "m_0"), ("m_0.99", "m_0"), ("m_0.99", "m_0.9"), ("m_0.99", "m_0.999")],
  )

r"""Pretext tasks at equal images, layer by layer, beside other learning.

Command:   ssl-jax prepare colour_prior --config=configs/pretrain/colorization_cifar10_cpu.py \
             --config.data.data_dir=TFDS --output=prior.json
           ssl-jax study --study=configs/studies/pretext.py:prior.json --output=DIR --data_dir=TFDS
Claims:    Each pretext task learns features that are far better than those of an untrained network; the best
           layer lies in the middle, not at the end, where features serve the task. Contrastive learning is
           better than all of them, and its best layer is the last [Kolesnikov et al. 2019; MMSelfSup].
Runs:      4 epochs of 45,000 images each, by the recipes of docs/results.md; MAE is a ViT without stages and
           has its last layer alone.
Measured:  docs/results.md
"""

from ssl_jax import define_study

EPOCHS = 4.0
TASKS = ("rotation", "context", "jigsaw", "counting")
LAYERS = ("stage1", "stage2", "stage3", "stage4")
MOCO = "pretrain/moco_cifar10_cpu.py"


def get_study(prior=""):
  colours = (
    f"pretrain/colorization_cifar10_cpu.py:{prior}" if prior else "pretrain/colorization_cifar10_cpu.py"
  )
  runs = {name: run(f"pretrain/{name}_cifar10_cpu.py") for name in TASKS}
  runs["colorization"] = run(colours)
  runs["moco"] = run(MOCO)
  contrast = {
    "method": dict(name="simclr", dim=128, temperature=0.2),
    "encoder.batch_groups": 1,
    "augment": dict(name="simclr", views=2, size=32, scale=(0.2, 1.0), strength=0.5, blur=False),
  }
  runs["simclr"] = run(MOCO, **contrast)
  labels = {
    "method": dict(name="supervised"),
    "encoder.batch_groups": 1,
    "augment": dict(name="supervised", views=1, size=32, scale=(0.2, 1.0)),
  }
  runs["supervised"] = run(MOCO, **labels) | dict(evaluations=("layers_and_untrained",))
  runs["mae"] = run("pretrain/mae_cifar10_cpu.py:small", evaluations=("last_layer",))
  few = {"data.train_split": "train[:20000]"}
  layers = dict(config="transfer/pretext.py:layers", overrides=few | {"baselines": ()}, scalars=scalars())
  compared = layers | dict(overrides=few)
  last = dict(
    config="transfer/small_mae.py", overrides={"baselines": ()}, scalars=("knn.top1", "linear_probe.top1")
  )
  learned = ("rotation", "context", "jigsaw", "counting", "colorization")
  return define_study(
    runs=runs,
    evaluations=dict(layers=layers, layers_and_untrained=compared, last_layer=last),
    comparisons=[(name, "supervised:untrained") for name in (*learned, "moco", "simclr")]
    + [("moco", name) for name in learned]
    + [("simclr", "moco"), ("supervised", "moco")],
    picture="lines",
  )


def run(config, *, evaluations=("layers",), **overrides):
  """A run of EPOCHS epochs."""
  return dict(config=config, overrides={"epochs": EPOCHS, **overrides}, evaluations=evaluations)


def scalars():
  """The accuracies that are reported."""
  return (*(f"{layer}.top1" for layer in LAYERS), "knn.top1")

"""Commands that bring weights in and out."""

from __future__ import annotations

from ssl_jax.cli.flags import WORKDIR, Command, Flag


def import_(values) -> None:
  """Use weights that others trained: ssl-jax import --kind=KIND --input=FILE --output=DIR

  Makes DIR a run that `evaluate`, `show`, `export` and --config.start.workdir take like a trained one. Kinds: moco_v1, moco_v2, mae (the
  encoder), mae_full (with the decoder), timm_vit, torchvision_resnet, npz (what `ssl-jax export` wrote).
  """
  from ssl_jax.convert import Options
  from ssl_jax.convert import import_weights as run

  run(values.kind, values.input, values.output, Options(values.normalize, values.heads, values.classes))


def export(values) -> None:
  """Give a network to others: ssl-jax export --workdir=DIR --output=FILE

  FILE.npz or FILE.safetensors: all tensors, named and laid out as in PyTorch's libraries. FILE.stablehlo: the encoder as a program that
  runs with jax alone, on images f32[b, size, size, 3] in [0, 1].
  """
  from ssl_jax.convert import export_weights as run

  run(values.workdir, values.output, step=values.step, which=values.weights, size=values.size)


COMMANDS = {
  "import": Command(
    import_,
    (
      Flag("kind", None, "what kind of file it is"),
      Flag("input", None, "a .pth, .pt, .tar, .safetensors or .npz"),
      Flag("output", None, "the new folder"),
      Flag("normalize", "", "how pixels are scaled first; needed for timm_vit"),
      Flag("heads", 0, "of a transformer of unusual size"),
      Flag("classes", 0, "of the data, where the file has no classifier"),
    ),
  ),
  "export": Command(
    export,
    (
      WORKDIR,
      Flag("output", None, "a .npz, .safetensors or .stablehlo"),
      Flag("step", 0, "the checkpoint; 0: the last"),
      Flag("weights", "params", "params, or ema for the moving average"),
      Flag("size", 0, "side of the program's images; 0: as in the run"),
    ),
  ),
}

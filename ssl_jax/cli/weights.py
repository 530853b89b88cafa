"""Commands that convert weights: `import` and `export`."""

from __future__ import annotations

from ssl_jax.cli.flags import WORKDIR, Command, Flag


def import_(values) -> None:
  """Convert published weights to a run.

  Usage: ssl-jax import --kind=KIND --input=FILE --output=DIR

  The new folder DIR is a run, which `evaluate`, `show`, `export` and --config.start.workdir accept like a
  trained one.

  KIND is one of:
    moco_v1, moco_v2       a pre-trained MoCo
    mae                    the encoder of a masked autoencoder
    mae_full               the encoder and the decoder of a masked autoencoder; needs --target
    timm_vit               a vision transformer of timm
    torchvision_resnet     a ResNet of torchvision
    torchvision_detection  torchvision's fasterrcnn_resnet50_fpn or maskrcnn_resnet50_fpn
    npz                    a file written by `ssl-jax export`
  """
  from ssl_jax.convert import Options
  from ssl_jax.convert import import_weights as run

  run(
    values.kind,
    values.input,
    values.output,
    Options(values.normalize, values.heads, values.classes, values.target),
  )


def export(values) -> None:
  """Export the network of a run to a file for other libraries.

  Usage: ssl-jax export --workdir=DIR --output=FILE

  The suffix of FILE selects the format:
    .npz, .safetensors  all tensors, with the names and layouts of PyTorch's libraries; of an encoder that
                        these do not have, such as that of policies, with those of this one
    .stablehlo          the encoder as a program that needs only jax to run; its input are images
                        f32[b, size, size, 3] in [0, 1]
  """
  from ssl_jax.convert import export_weights as run

  run(values.workdir, values.output, step=values.step, which=values.weights, size=values.size)


COMMANDS = {
  "import": Command(
    import_,
    (
      Flag("kind", None, "the kind of weights in the file; see above"),
      Flag("input", None, "the file: .pth, .pt, .tar, .safetensors or .npz"),
      Flag("output", None, "the folder of the new run; it must be new or empty"),
      Flag("normalize", "", "how pixels are normalised before the network; required for timm_vit"),
      Flag(
        "heads", 0, "attention heads of a transformer of unusual size; 0, the default, is the usual number"
      ),
      Flag(
        "classes",
        0,
        "classes of the data, if the file has no classifier; 0, the default, is the usual number",
      ),
      Flag(
        "target",
        "",
        "what the decoder of a masked autoencoder predicts: pixels, or normalized (pixels normalised by the "
        "mean and deviation of their patch, --norm_pix_loss); required for mae_full",
      ),
    ),
  ),
  "export": Command(
    export,
    (
      WORKDIR,
      Flag("output", None, "the file to write: .npz, .safetensors or .stablehlo"),
      Flag("step", 0, "the step of the checkpoint to export; 0, the default, is the last checkpoint"),
      Flag("weights", "params", "params, or ema for their moving average"),
      Flag(
        "size",
        0,
        "side in pixels of the images of a .stablehlo program; 0, the default, is the size in the run",
      ),
    ),
  ),
}

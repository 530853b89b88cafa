"""Files that cannot be imported are refused with the name of the tensor and a cure; nothing is written."""

import functools
import json
import re
import zipfile

import numpy as np
import pytest

from ssl_jax import convert
from ssl_jax.config.schema import to_json
from ssl_jax.convert import Options, files, import_weights
from ssl_jax.models import patches
from tests.convert import odd_files

# The changes of a transformer that MAE's fine-tuning makes.
TUNED = {"norm.weight": None, "norm.bias": None, "fc_norm.weight": (8,), "fc_norm.bias": (8,)}
SIGNED = Options(normalize="signed", heads=2)
SINCOS = np.concatenate([np.zeros((1, 32)), patches.sincos_positions((2, 2), 32)])[None].astype(np.float32)


def saved(tmp_path, tensors) -> str:
  np.savez(tmp_path / "file.npz", **tensors)
  return str(tmp_path / "file.npz")


def renamed(change) -> odd_files.Tensors:
  return {change(name): value for name, value in odd_files.vit().items()}


def set_to(tensors, name, value) -> odd_files.Tensors:
  changed = {**tensors, name: tensors[name].copy()}
  changed[name].flat[0] = value
  return changed


ODD = {  # name -> (tensors, what the message says: the culprit, then the cure)
  "no_cls_token": (odd_files.vit(cls_token=None), "missing cls_token: .*trained with one"),
  "no_pos_embed": (odd_files.vit(pos_embed=None), "missing pos_embed: .*import a network that has one"),
  "dist_token": (odd_files.vit(tokens=6, dist_token=(1, 1, 8)), "dist_token .*DeiT.*without distillation"),
  "no_embed_class": (odd_files.vit(tokens=4), r"pos_embed \[1, 4, 8\] .*row of zeros in front"),
  "registers": (odd_files.vit(reg_token=(1, 4, 8)), "reg_token .*without registers"),
  "not_square": (odd_files.vit(tokens=7), r"pos_embed \[1, 7, 8\] has 6 positions .*square images"),
  "layer_scale": (odd_files.vit(**{"blocks.0.ls1.gamma": (8,)}), "blocks.0.ls1.gamma .*multiply the rows"),
  "beit": (odd_files.vit(**{"blocks.0.gamma_1": (8,)}), "blocks.0.gamma_1 .*multiply the rows"),
  "swiglu": (
    renamed(lambda n: n.replace("mlp.fc1", "mlp.w12")),
    "blocks.0.mlp.w12.weight .*plain|mlp.fc1, GELU",
  ),
  "separate": (
    renamed(lambda n: n.replace("qkv", "q")),
    "blocks.0.attn.q.weight .*concatenate query, key and",
  ),
  "relative": (
    odd_files.vit(**{"blocks.0.attn.relative_position_bias_table": (9, 2)}),
    "relative.*one table",
  ),
  "qk_norm": (
    odd_files.vit(**{"blocks.1.attn.q_norm.weight": (4,)}),
    "blocks.1.attn.q_norm.weight .*without it",
  ),
  "norm_pre": (odd_files.vit(**{"norm_pre.weight": (8,)}), "norm_pre.weight .*import a network without it"),
  "probe": (odd_files.vit(**{"head.0.running_mean": (8,)}), "head.0.running_mean .*leave head.* out"),
  "hybrid": (
    odd_files.vit(**{"patch_embed.backbone.conv.weight": (8, 3, 3, 3)}),
    "patch_embed.backbone.*one layer",
  ),
  "no_blocks": (odd_files.vit(depth=0), "missing blocks.0: .*store all tensors"),
  "gap": (
    renamed(lambda n: n.replace("blocks.0.", "blocks.2.")),
    "missing blocks.0, though there is blocks.2",
  ),
  "3d_pos": (
    odd_files.vit(pos_embed=(2, 2, 8)),
    r"pos_embed has shape \[2, 2, 8\], expected .*reshape the table",
  ),
  "grey": (
    odd_files.vit(**{"patch_embed.proj.weight": (8, 1, 2, 2)}),
    r"proj.weight has shape \[8, 1, 2, 2\], expected \[8, 3, N, N\]",
  ),
  "video": (
    odd_files.vit(**{"patch_embed.proj.weight": (8, 3, 2, 2, 2)}),
    r"proj.weight has shape .*expected \[8, 3,",
  ),
  "oblong": (odd_files.vit(**{"patch_embed.proj.weight": (8, 3, 2, 4)}), "patches of 2 x 4 pixels.*square"),
  "scrambled": (
    odd_files.vit(**{"patch_embed.proj.weight": (8, 2, 3, 2)}),
    r"has shape \[8, 2, 3, 2\], expected",
  ),
  "nan": (
    set_to(odd_files.vit(), "blocks.1.norm1.bias", np.nan),
    "blocks.1.norm1.bias has 1 of 8 values that are NaN",
  ),
  "infinite": (
    set_to(odd_files.vit(), "head.bias", np.inf),
    "head.bias has 1 of 10 .*before its training diverged",
  ),
  "too_large": (
    {**odd_files.vit(), "head.bias": np.full(10, 1e300)},
    "head.bias has 10 of 10 .*infinite in float32",
  ),
  "quantized": (
    {**odd_files.vit(), "norm.bias": np.zeros(8, np.int8)},
    "norm.bias has the type int8, expected floating-point numbers",
  ),
  "complex": (
    {**odd_files.vit(), "norm.bias": np.zeros(8, complex)},
    "norm.bias has the type complex128.*float32",
  ),
  "text": ({**odd_files.vit(), "norm.bias": np.array(["1.5"] * 8)}, "norm.bias has the type <U3.*float32"),
  "empty": ({}, "no tensors at all"),
  "positional": (
    {"arr_0": np.zeros(3, np.float32)},
    "it has no tensor 'patch_embed.', but arr_0; kinds are moco_v1",
  ),
  **{
    f"prefix {prefix}": (
      renamed(lambda n, p=prefix: p + n),
      rf"tensors have the prefix '{prefix}': store them without it, as in",
    )
    for prefix in ("module.", "backbone.", "model.encoder.", "_orig_mod.")
  },
  "resnet": (odd_files.resnet(), "try --kind=torchvision_resnet or --kind=npz"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_transformer_is_refused_with_culprit_and_cure(name, tmp_path):
  tensors, message = ODD[name]
  with pytest.raises(ValueError, match=message) as error:
    import_weights("timm_vit", saved(tmp_path, tensors), tmp_path / "run", SIGNED)
  assert "file.npz" in str(error.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "module.encoder."])
def test_a_prefix_of_most_tensors_is_named_and_the_cure_works(prefix, tmp_path):
  tensors = odd_files.resnet(prefix=prefix) | {"projector.weight": np.zeros((3, 3), np.float32)}
  with pytest.raises(ValueError, match=f"prefix '{prefix}'.* leave the other 1 out") as error:
    import_weights("torchvision_resnet", saved(tmp_path, tensors), tmp_path / "run")
  cured = eval(re.search(r"as in (\{.*\})", str(error.value))[1], {"tensors": tensors})
  import_weights("torchvision_resnet", saved(tmp_path, cured), tmp_path / "run")


def test_other_kinds_and_missing_prefixes_are_hinted_at(tmp_path):
  both = odd_files.resnet(prefix="module.encoder_q.") | odd_files.resnet(prefix="module.encoder_k.")
  for kind, tensors, message in (
    ("torchvision_resnet", both, "try --kind=moco_v1 or --kind=moco_v2"),
    ("moco_v2", odd_files.resnet(prefix="encoder_q."), "with the prefix 'module.' before each name"),
    (
      "torchvision_resnet",
      set_to(odd_files.resnet(), "bn1.running_var", -1),
      "bn1.running_var has the negative variance",
    ),
  ):
    with pytest.raises(ValueError, match=message):
      import_weights(kind, saved(tmp_path, tensors), tmp_path / "run")


MUTATIONS = {
  "absent": lambda value: None,
  "scalar": lambda value: value.reshape(-1)[0],
  "with an axis more": lambda value: value[None],
  "empty": lambda value: value[:0],
  "halved": lambda value: value[..., : value.shape[-1] // 2],
}
SOUND = {
  "timm_vit": (odd_files.vit(), SIGNED),
  "mae_full": (odd_files.mae(SINCOS), SIGNED._replace(target="pixels")),
  "torchvision_resnet": (odd_files.resnet(), Options()),
  "moco_v1": (
    odd_files.resnet(prefix="module.encoder_q.") | odd_files.resnet(prefix="module.encoder_k."),
    Options(),
  ),
}


@pytest.mark.parametrize("kind", SOUND)
def test_no_tensor_can_be_absent_or_of_another_shape(kind, tmp_path, monkeypatch):
  made, original = {}, convert.abstract_state

  @functools.wraps(original)
  def abstract_state(parts, config, mesh):
    key = json.dumps(to_json(config))
    if key not in made:
      made[key] = original(parts, config, mesh)
    return made[key]

  monkeypatch.setattr(convert, "abstract_state", abstract_state)
  tensors, options = SOUND[kind]
  import_weights(kind, saved(tmp_path, tensors), tmp_path / "sound", options)
  whole_parts = ("head.", "fc.")  # without it the file holds the encoder alone
  for name, value in tensors.items():
    for mutation, change in MUTATIONS.items():
      changed = {**tensors, name: change(value)}
      changed = {key: array for key, array in changed.items() if array is not None}
      if mutation == "absent" and name.startswith(whole_parts) and name.endswith("weight"):
        continue
      with pytest.raises(ValueError) as error:
        import_weights(kind, saved(tmp_path, changed), tmp_path / "run", options)
      stem = name.removeprefix("module.encoder_q.").removeprefix("module.encoder_k.")
      # A tensor of half the width may make all the others look wrong.
      assert mutation == "halved" or stem.split(".")[0] in str(error.value), (mutation, name)
      assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  "kind, changes, antialias",
  [
    ("timm_vit", {}, True),
    ("timm_vit", TUNED, False),
    ("mae", {"head.weight": None, "head.bias": None}, False),
  ],
)
def test_positions_are_interpolated_as_where_the_network_was_trained(kind, changes, antialias, tmp_path):
  import_weights(kind, saved(tmp_path, odd_files.vit(**changes)), tmp_path / "run", SIGNED)
  config = json.loads((tmp_path / "run" / "starts.jsonl").read_text())["config"]
  assert config["encoder"]["antialias_positions"] is antialias


@pytest.mark.parametrize(
  "note, message",
  [
    ("{", "is not the note of `ssl-jax export`, a JSON object"),
    ("[1]", "is not the note of `ssl-jax export`, a JSON object: it is a list"),
    ('{"config": 3}', "does not describe a network as `ssl-jax export` does"),
    ('{"data": {}}', "does not describe a network as `ssl-jax export` does .*export the run again"),
  ],
)
def test_a_note_that_export_did_not_write_is_refused(note, message, tmp_path):
  file = saved(tmp_path, {**odd_files.vit(), files.NOTE: np.array(note)})
  with pytest.raises(ValueError, match=message):
    import_weights("npz", file, tmp_path / "run")


def test_a_checkpoint_of_pytorch_that_is_named_npz_is_told_from_arrays(tmp_path):

  with zipfile.ZipFile(tmp_path / "file.npz", "w") as archive:
    archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
  with pytest.raises(ValueError, match="archive/data.pkl is not an array.* ends in .pth"):
    import_weights("npz", tmp_path / "file.npz", tmp_path / "run")

"""What is refused on this machine before anything is created: buckets, outputs, recipes and options."""

import pytest

from ssl_jax.launching import checkout, command
from ssl_jax.launching.options import parse

TRAIN = ("train", "--config=configs/pretrain/moco_sample.py", "--workdir=gs://my-runs/moco")


def test_buckets_become_folders_wherever_they_stand():
  found = command.localized(
    [*TRAIN, "--config.data.data_dir=gs://data-1/tfds", "--x=gs://my-runs,gs://b_2/y"]
  )
  assert found.buckets == ("my-runs", "data-1", "b_2")
  assert found.words[2:] == (
    "--workdir=/tmp/gcs/my-runs/moco",
    "--config.data.data_dir=/tmp/gcs/data-1/tfds",
    "--x=/tmp/gcs/my-runs,/tmp/gcs/b_2/y",
  )


@pytest.mark.parametrize("name", ["BUCKET", "ab", "-abc", "a..b", "google-data", "", "a" * 64])
def test_names_that_no_bucket_has_are_refused(name):
  with pytest.raises(ValueError, match=f"gs://{name} names no bucket: '{name}' is not 3 to 63"):
    command.localized([*TRAIN[:2], f"--workdir=gs://{name}/runs"])


def test_what_would_be_lost_or_is_not_there_is_refused():
  with pytest.raises(
    ValueError, match="--workdir=runs/a is on the disks of the workers.*--workdir=gs://BUCKET"
  ):
    command.localized([*TRAIN[:2], "--workdir=runs/a"])
  with pytest.raises(ValueError, match="--config=/home/ada/r.py is a path of this machine"):
    command.localized(["train", "--config=/home/ada/r.py", TRAIN[2]])


def test_a_command_is_checked_as_the_workers_will_find_it(tmp_path):
  """Only the recipe of the copy is found, and the batch must be divisible by the devices of the slices."""
  found = checkout.find_checkout()
  checkout.pack(found, tmp_path / "ssl_jax.tar")
  checkout.unpack(tmp_path / "ssl_jax.tar", tmp_path / "copy")
  assert (tmp_path / "copy" / ".commit").read_text() == f"{found.commit}\n"
  told = command.check(command.localized(TRAIN), tmp_path / "copy", devices=16)
  assert told == "moco, resnet10: batch 128 on 16 devices, 7,992 images of sample, 1,612 steps"
  for words, message in [
    (("--config.batch_size=100",), "config.batch_size 100 is not divisible by 16 devices"),
    (("--config.method.temperatur=1",), "--config.method.temperatur is unknown; did you mean"),
    (("--config=configs/mine.py",), "--config=configs/mine.py: there is no file 'configs/mine.py'"),
  ]:
    with pytest.raises(ValueError, match=f"^{message}") as error:
      command.check(command.localized([*TRAIN, *words]), tmp_path / "copy", devices=16)
    assert "TRACEBACK" not in str(error.value)


def test_unknown_commands_are_refused_and_others_pass(tmp_path):
  with pytest.raises(ValueError, match="there is no command 'trian'"):
    command.check(command.Command(("trian",), ()), checkout.ROOT, 0)
  told = command.check(command.Command(("embed", "--x=1"), ()), checkout.ROOT, 0)
  assert told == "the command 'embed' has no quick dry run: only its name is checked"


@pytest.mark.parametrize(
  "type, slices, devices",
  [
    ("v5litepod-64", 1, 64),
    ("v4-64", 1, 32),
    ("v5p-16", 2, 16),
    ("v6e-8", 3, 24),
    ("v3-8", 1, 8),
    ("v9-8", 1, 0),
  ],
)
def test_devices_are_counted_from_the_type(type, slices, devices):
  words = ["--name=a", "--zone=z", f"--type={type}", f"--slices={slices}", "--", "train"]
  assert parse(words).devices == devices

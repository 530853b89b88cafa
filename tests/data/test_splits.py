"""Splits are resolved as TFDS resolves them."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ssl_jax.data import sources, splits

SIZES = {"train": 7992, "test": 2000}


@pytest.fixture(scope="module")
def builder():
  return tfds.builder_from_directory(sources.SAMPLE / "eurosat_sample" / "1.0.0")


@pytest.mark.parametrize(
  "spec",
  [
    "train",
    "test",
    "train[:90%]",
    "train[90%:]",
    "train[100:200]",
    "train[-1000:]",
    "train[:-10%]",
    "train[10%:20%]",
    "train[33%:67%]",
    "train[1_000:2_000]",
    "test[7%:]",
  ],
)
def test_same_images_as_tfds(builder, spec):
  ((split, places),) = splits.resolve(spec, SIZES)
  (instruction,) = builder.info.splits[spec].file_instructions
  assert f"-{split}." in instruction.filename
  assert (places.start, len(places)) == (instruction.skip, builder.info.splits[spec].num_examples)


def test_odd_sizes_round_as_tfds_does():
  for size in (7, 10, 33, 101, 999):
    template = tfds.core.ShardedFileTemplate(
      dataset_name="x", data_dir="/", split="train", filetype_suffix="array_record"
    )
    info = tfds.core.SplitInfo(name="train", shard_lengths=[size], num_bytes=0, filename_template=template)
    known = tfds.core.SplitDict([info])
    for percent in (1, 5, 50, 84):
      ((_, places),) = splits.resolve(f"train[{percent}%:]", {"train": size})
      assert len(places) == known[f"train[{percent}%:]"].num_examples


def test_parts_are_joined_in_order():
  parts = splits.resolve("test[:10]+train[50%:]", SIZES)
  assert parts == [("test", range(10)), ("train", range(3996, 7992))]


@pytest.mark.parametrize(
  "spec, message",
  [
    ("tran", "no split 'tran'; did you mean 'train'\\? known: test, train"),
    ("train[", "is not a split"),
    ("train[:90x]", "is not a split"),
    ("", "is not a split"),
    ("train[5:5]", "selects nothing"),
    ("train[200:100]", "selects nothing"),
    ("train[:8001]", "reaches to 8001, but the split has 7992"),
    ("train[:101%]", "reaches to 101%"),
  ],
)
def test_errors(spec, message):
  with pytest.raises(ValueError, match=message):
    splits.resolve(spec, SIZES)


@pytest.mark.parametrize("cut", ["10%", "33%", "80%", "1", "7", "-5", "-20%"])
def test_parts_of_records_sorted_by_class_hold_the_classes_in_proportion(cut):
  labels = np.repeat(np.arange(5), (40, 20, 10, 7, 1))
  ((_, first),) = splits.choose(f"train[:{cut}]", {"train": labels})
  ((_, rest),) = splits.choose(f"train[{cut}:]", {"train": labels})
  assert sorted([*first, *rest]) == list(range(78))
  assert len(first) == len(splits.resolve(f"train[:{cut}]", {"train": 78})[0][1])
  share = np.bincount(labels[first], minlength=5) - len(first) / 78 * np.bincount(labels)
  assert np.abs(share).max() <= 1  # by less than one image
  assert (np.diff(first) > 0).all() and (np.diff(rest) > 0).all()


def test_a_whole_split_keeps_its_order_and_records_without_labels_are_cut_from_a_shuffled_one():
  labels = {"train": np.repeat([0, 1], 50), "test": np.full(100, -1)}
  (train, test) = splits.choose("train+test", labels)
  assert train[1].tolist() == test[1].tolist() == list(range(100))
  ((_, first),) = splits.choose("test[:50]", labels)
  assert 35 < first.mean() < 65 and first.tolist() != list(range(0, 100, 2))


@pytest.mark.parametrize(
  "spec, known, chosen",
  [
    ("test", ("train", "test"), "test"),
    ("train", ("train", "test"), "train"),
    ("test", ("train", "val"), "val"),
    ("validation", ("train", "test", "val"), "test"),
    ("test[:50]", ("train", "valid"), "valid[:50]"),
    ("train", ("train", "valid"), "train"),
    ("train", ("train",), "train[:90%]"),
    ("test", ("train",), "train[90%:]"),
    ("val", ("train", "unlabeled"), "train[90%:]"),
    ("unlabeled", ("train", "unlabeled"), "unlabeled"),
    ("train[:100%]", ("train",), "train[:100%]"),
    ("train[90%:]", ("train",), "train[90%:]"),
    ("train+unlabeled", ("train", "unlabeled"), "train+unlabeled"),
    ("test", ("extra",), "test"),
    ("tset", ("train",), "tset"),
  ],
)
def test_what_stands_for_a_split_that_a_folder_does_not_have(spec, known, chosen):
  found, note = splits.stand_in(spec, known)
  assert found == chosen and bool(note) == (chosen != spec)

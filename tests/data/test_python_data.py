"""Data sets that are Python objects: every form of item, labels and names, splits, what identifies them."""

import io
import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from ssl_jax.data import python_data, sources
from ssl_jax.data.decode import decode
from ssl_jax.data.image_forms import as_image, as_pixels
from ssl_jax.data.python_data import open_objects


def pixels(number: int, height: int = 6, width: int = 5) -> np.ndarray:
  return np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)


def png(array: np.ndarray) -> bytes:
  file = io.BytesIO()
  Image.fromarray(array).save(file, "PNG")
  return file.getvalue()


class Torchlike:
  """As torchvision's data sets: tuples, `classes` and `targets`."""

  classes = ("ant", "bee")
  targets = [0, 1, 0, 1]

  def __len__(self):
    return 4

  def __getitem__(self, index):
    return Image.fromarray(pixels(index)), self.targets[index]


class Names(dict):
  """As the features of a Hugging Face data set."""

  names = ["ant", "bee"]


class HuggingFacelike:
  """As a Hugging Face data set: mappings, columns by name, features."""

  column_names = ["img", "label"]
  features = {"label": Names()}

  def __len__(self):
    return 4

  def __getitem__(self, index):
    return [0, 1, 0, 1] if index == "label" else {"img": {"bytes": png(pixels(index))}, "label": index % 2}


IMAGES = np.stack([pixels(i) for i in range(4)])
LABELS = np.array([0, 1, 0, 1])
DATA_SETS = {
  "torch": Torchlike(),
  "hugging face": HuggingFacelike(),
  "list of dicts": [{"image": pixels(i), "label": i % 2} for i in range(4)],
  "list of tuples": [(png(pixels(i)), np.int64(i % 2)) for i in range(4)],
  "arrays": {"image": IMAGES, "label": LABELS},
  "two arrays": (IMAGES, LABELS),
  "channels first": {"image": np.moveaxis(IMAGES, -1, 1).astype(np.float32) / 255, "label": LABELS},
}


@pytest.mark.parametrize("form", DATA_SETS)
def test_every_form_gives_the_same_records(form):
  source = open_objects(DATA_SETS[form])
  assert len(source) == 4 and source.num_classes == 2 and source.fields == ("image", "label")
  assert source.class_names in (("ant", "bee"), ("0", "1"))
  for i, record in enumerate(source.__getitems__(range(4))):
    image = record["image"]
    np.testing.assert_array_equal(decode(image) if isinstance(image, bytes) else image, pixels(i))
    assert record["label"] == i % 2
  assert source.native_shape == ((6, 5, 3) if "array" in form else None)
  assert not source.sorted_by_class and source.name(3).endswith("item 3")


def test_torch_data_sets():
  torch = pytest.importorskip("torch", reason="torch is not installed: extra `import`")
  tensors = torch.from_numpy(np.moveaxis(IMAGES, -1, 1) / np.float32(255)), torch.from_numpy(LABELS)
  whole = torch.utils.data.TensorDataset(*tensors)
  for data in (whole, torch.utils.data.Subset(whole, range(4))):
    source = open_objects(data)
    assert source.class_names == ("0", "1") and [source[i]["label"] for i in range(4)] == LABELS.tolist()
    np.testing.assert_array_equal(source[2]["image"], pixels(2))


def test_images_alone_have_no_classes():
  for data in (IMAGES, list(IMAGES)):
    source = open_objects(data)
    assert source.num_classes == 0 and source[2]["label"] == -1
    np.testing.assert_array_equal(source[2]["image"], pixels(2))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays_of_other_channels_and_types_become_rgb(channels):
  array = (
    pixels(0, 7, 9)[..., :1] if channels == 1 else np.concatenate([pixels(0, 7, 9)] * 2, -1)[..., :channels]
  )
  if channels == 4:
    array[..., 3] = 255
  expected = np.broadcast_to(array[..., :3], (7, 9, 3))
  for form in (array, array.astype(np.int64), array / 255.0, np.moveaxis(array, -1, 0)):
    np.testing.assert_array_equal(as_pixels(form, "it"), expected)
  if channels == 1:
    np.testing.assert_array_equal(as_pixels(array[..., 0], "it"), expected)


def test_files_are_read_by_path(tmp_path):
  path = tmp_path / "a.png"
  path.write_bytes(png(pixels(0)))
  for form in (path, str(path), {"path": str(path), "bytes": None}, path.read_bytes()):
    assert as_image(form, "it") == path.read_bytes()


@pytest.mark.parametrize(
  "item, message",
  [
    (
      {"image": np.full((4, 4, 3), -1.0), "label": 0},
      r"item 0 .* float64 from -1 to -1; use uint8 or floats",
    ),
    ({"image": np.full((4, 4, 3), np.nan), "label": 0}, "from nan to nan"),
    ({"image": np.zeros((5, 5, 7), np.uint8)}, r"shape \(5, 5, 7\); use \[H, W, 3\]"),
    ({"photo": 1, "label": 0}, "has photo, label, but no 'image'"),
    ((pixels(0), np.array([0, 1])), "a label is the number of one class"),
    ((pixels(0), 0.5), "a label is the number of one class"),
    (object(), r"image of type object and shape \(\)"),
  ],
)
def test_an_item_that_is_not_understood_is_named(item, message):
  with pytest.raises(ValueError, match=message):
    open_objects([item])


@pytest.mark.parametrize(
  "data, message",
  [
    ([], "is empty"),
    (iter([1]), "use an object with len"),
    ("photos", "of type str; use an object with len"),
  ],
)
def test_other_objects_are_refused(data, message):
  with pytest.raises(ValueError, match=message):
    open_objects(data)


def test_more_labels_than_names_are_refused():
  data = Torchlike()
  data.targets = [0, 2, 0, 1]
  with pytest.raises(ValueError, match="has the label 2, but only 2 class names"):
    open_objects(data)


def test_labels_without_a_list_are_found_by_reading_every_item():
  class Unlisted(list):
    pass

  source = open_objects(Unlisted([(pixels(i), 3 - i) for i in range(4)]))
  assert source.class_names == ("0", "1", "2", "3") and not source.sorted_by_class
  assert open_objects([(pixels(i), i) for i in range(4)]).sorted_by_class


def test_parts_hold_the_classes_in_proportion_and_are_disjoint():
  data = {"image": np.stack([pixels(i) for i in range(20)]), "label": np.repeat([0, 1], 10)}
  first, rest = (open_objects(data, split) for split in ("train[:50%]", "train[50%:]"))
  assert [np.bincount([s[i]["label"] for i in range(10)]).tolist() for s in (first, rest)] == [[5, 5]] * 2
  seen = [s[i]["image"].tobytes() for s in (first, rest) for i in range(10)]
  assert len(set(seen)) == 20


def test_splits_by_name_and_joined():
  data = {"train": DATA_SETS["torch"], "test": [(pixels(9), 1)]}
  assert len(open_objects(data, "test")) == 1
  both = open_objects(data, "test+train")
  assert len(both) == 5 and both.class_names == ("ant", "bee") and both.name(0).endswith("test, item 0")
  np.testing.assert_array_equal(both[0]["image"], pixels(9))
  with pytest.raises(ValueError, match="the data set given has no split 'val'; known: test, train"):
    open_objects(data, "val")


def test_masks_are_passed_on():
  class Masked(list):
    classes = ("road", "tree")

  mask = np.array([[0, 1], [1, 255]])
  source = open_objects(Masked([{"image": pixels(0, 2, 2), "mask": Image.fromarray(mask.astype(np.uint8))}]))
  assert source.fields == ("image", "mask", "label") and source.mask_classes == ("road", "tree")
  np.testing.assert_array_equal(source[0]["mask"], mask)
  with pytest.raises(ValueError, match="has masks; name their classes"):
    open_objects([{"image": pixels(0, 2, 2), "mask": mask}])


def test_the_content_identifies_the_data_if_it_stays_the_same():
  one, same, other = (open_objects([(pixels(i + k), 0) for i in range(50)]) for k in (0, 0, 1))
  assert one.fingerprint == same.fingerprint != other.fingerprint and not one.note

  class Random(list):
    def __getitem__(self, index):
      return np.random.default_rng().integers(0, 256, (4, 4, 3), np.uint8)

  changing = open_objects(Random([0] * 5))
  assert not changing.fingerprint and "item 0 differs each time" in changing.note


def test_worker_processes_get_a_copy():
  reader = open_objects(DATA_SETS["arrays"]).reader
  again = pickle.loads(pickle.dumps(reader))
  np.testing.assert_array_equal(again.read([3])[0]["image"], pixels(3))


MODULE = """
import numpy as np

def make(split, data_dir=""):
  seed = {"train": 0, "test": 1}[split]
  return np.full((4, 2, 2, 3), 10 * seed + len(data_dir), np.uint8)

def whole():
  return np.zeros((10, 2, 2, 3), np.uint8)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
  (tmp_path / "my_own_data.py").write_text(MODULE)
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, "path", sys.path.copy())
  yield
  sys.modules.pop("my_own_data", None)


def test_a_function_is_named_by_its_module(module):
  test = sources.make("my_own_data:make", split="test", data_dir="ab")
  assert len(test) == 4 and test[0]["image"][0, 0, 0] == 12
  assert len(sources.open_split("my_own_data:make", split="train+test[:50%]")) == 6
  assert len(sources.make("my_own_data:whole", split="train[:70%]")) == 7
  with pytest.raises(ValueError, match="my_own_data:whole has no split 'test'"):
    sources.make("my_own_data:whole", split="test")


@pytest.mark.parametrize(
  "name, message",
  [
    ("my_own_datum:make", "there is no module 'my_own_datum'; start the program in the folder"),
    ("my_own_data:mak", "my_own_data has no function 'mak'; did you mean 'make'"),
    (python_data.GIVEN, "a program passed the data as an object"),
  ],
)
def test_a_function_that_is_not_there_is_named(module, name, message):
  with pytest.raises(ValueError, match=message):
    sources.make(name)

import numpy as np
import pytest

from ssl_jax import tasks
from ssl_jax.tasks.partial_results import PartialResults
from ssl_jax.tasks.task import Task, check_choice, check_labels, rank_of_label


def test_the_folder_is_the_registry():
  assert {"knn", "linear_probe"} <= set(tasks.known())
  assert not {"features", "pictures", "task", "heads"} & set(tasks.known())
  for name in tasks.known():
    assert isinstance(tasks.make(name), Task) and tasks.make(name).name == name


def test_an_unknown_task_names_the_nearest_and_the_known():
  with pytest.raises(
    ValueError, match=r"no task is called 'linear_prob'; did you mean 'linear_probe'\? known: "
  ):
    tasks.make("linear_prob")
  with pytest.raises(ValueError, match="unknown fruit 'xyz'; known: apple, pear"):
    check_choice("fruit", "xyz", ["apple", "pear"])


def test_rank_of_label_is_the_place_in_a_stable_sort():
  draw = np.random.default_rng(0)
  scores, labels = draw.integers(0, 4, (2, 50, 7)).astype(np.float32), draw.integers(0, 7, 50)
  places = np.argsort(np.argsort(-scores, axis=-1, kind="stable"), axis=-1)
  expected = np.take_along_axis(places, np.broadcast_to(labels, (2, 50))[..., None], axis=-1)[..., 0]
  np.testing.assert_array_equal(rank_of_label(scores, labels), expected)


def test_a_score_that_says_nothing_earns_nothing():
  labels = np.arange(5)
  assert (rank_of_label(np.zeros((5, 5)), labels) < 1).mean() == 1 / 5
  assert (rank_of_label(np.full((5, 5), np.nan), labels) < 5).sum() == 0
  assert (rank_of_label(np.full((5, 5), -np.inf), labels) < 5).sum() == 0


def test_labels_out_of_range_are_named():
  with pytest.raises(ValueError, match="labels of the test images run from -1 to 3, but there are 3 classes"):
    check_labels(np.array([-1, 3]), 3, "test")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"not an archive"])
def test_damaged_partial_results_are_told_and_left_out(content, tmp_path, capsys):
  kept = PartialResults(tmp_path / "it.npz")
  kept.save({"a": 1}, {"x": np.arange(3)})
  assert kept.load({"a": 1})["x"].tolist() == [0, 1, 2] and kept.load({"a": 2}) == {}
  (tmp_path / "it.npz").write_bytes(content)
  assert kept.load({"a": 1}) == {} and "it.npz is damaged" in capsys.readouterr().out

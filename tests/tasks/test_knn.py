import jax
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from ssl_jax.tasks import knn
from ssl_jax.tasks.features import Features
from ssl_jax.tasks.knn import Neighbours, nearest, vote


def random_features(count, width, seed):
  return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def unit(x):
  return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize(
  "temperature,winner,shares",
  [
    (0.07, 0, (0.94275, 0.05414 + 0.00311)),
    (1.0, 1, (2.71828 / (2.71828 + 4.04766), 4.04766 / (2.71828 + 4.04766))),
  ],
)
def test_toy_example(mesh_of, temperature, winner, shares):
  """One near neighbour of class A and two farther ones of class B: the temperature decides."""
  bank, labels = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8]], np.float32), np.array([0, 1, 1], np.int32)
  found = nearest(np.array([[1, 0]], np.float32), bank, k=3, mesh=mesh_of(1))
  votes = vote(found, labels, k=3, temperature=temperature, num_classes=2)[0]
  assert votes.argmax() == winner
  np.testing.assert_allclose(votes / votes.sum(), shares, atol=1e-5)


def test_toy_example_tells_temperature_from_distance():
  """The weights are e^14.2857, e^11.4286 and e^8.5714, up to a common factor."""
  found = Neighbours(np.array([[1.0, 0.8, 0.6]], np.float32), np.array([[0, 1, 2]]))
  votes = vote(found, np.array([0, 1, 2]), k=3, temperature=0.07, num_classes=4)[0]
  np.testing.assert_allclose(votes[:3], np.exp(np.array([14.2857, 11.4286, 8.5714]) - 14.2857), rtol=1e-4)
  assert votes[3] == -np.inf


@pytest.mark.parametrize("devices,chunk_rows", [(1, 0), (1, 7), (8, 0), (8, 33), (3, 100)])
def test_chunked_and_sharded_equal_dense(mesh_of, devices, chunk_rows):
  queries, bank = random_features(37, 16, 0), 5 * random_features(100, 16, 1)
  similarity = unit(queries) @ unit(bank).T
  order = np.argsort(-similarity, axis=1, kind="stable")[:, :20]
  found = nearest(queries, bank, k=20, mesh=mesh_of(devices), chunk_rows=chunk_rows)
  np.testing.assert_array_equal(found.index, order)
  np.testing.assert_allclose(found.similarity, np.take_along_axis(similarity, order, 1), atol=1e-6)


def test_ties_go_to_the_earlier_row_in_any_chunking(mesh_of):
  bank = np.tile(np.eye(2, dtype=np.float32), (10, 1))
  for chunk_rows in (0, 3, 7):
    found = nearest(np.eye(2, dtype=np.float32), bank, k=6, mesh=mesh_of(1), chunk_rows=chunk_rows)
    np.testing.assert_array_equal(found.index, [[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]])


def test_negative_similarity_beats_padding(mesh_of):
  """The last chunk is padded; its padded rows must lose even against the opposite of the query."""
  found = nearest(
    np.array([[1, 0]], np.float32),
    np.array([[-1, 0], [-1, 0.1], [-1, 0.2]], np.float32),
    k=3,
    mesh=mesh_of(1),
    chunk_rows=2,
  )
  np.testing.assert_array_equal(found.index, [[2, 1, 0]])
  assert (found.similarity < 0).all()


def test_exclude_self(mesh_of):
  x = random_features(30, 4, 0)
  plain = nearest(x, x, k=4, mesh=mesh_of(8), chunk_rows=7)
  without = nearest(x, x, k=3, mesh=mesh_of(8), chunk_rows=7, exclude_self=True)
  np.testing.assert_array_equal(plain.index[:, 0], np.arange(30))
  np.testing.assert_array_equal(plain.index[:, 1:], without.index)


def test_a_zero_vector_is_similar_to_none(mesh_of):
  bank = np.array([[0, 0], [1, 0]], np.float32)
  found = nearest(np.array([[1, 0], [0, 0]], np.float32), bank, k=2, mesh=mesh_of(1))
  np.testing.assert_allclose(found.similarity, [[1, 0], [0, 0]])


def test_too_many_neighbours_are_refused(mesh_of):
  x = random_features(10, 4, 0)
  with pytest.raises(ValueError, match="k=11 neighbours are more than the bank's 10 rows; use k<=10"):
    nearest(x, x, k=11, mesh=mesh_of(1))
  with pytest.raises(ValueError, match="k=10 neighbours are more than the bank's 9 other rows; use k<=9"):
    nearest(x, x, k=10, mesh=mesh_of(1), exclude_self=True)
  with pytest.raises(ValueError, match="queries have 4 dimensions, the bank has 3"):
    nearest(x, x[:, :3], k=1, mesh=mesh_of(1))
  with pytest.raises(ValueError, match="k=0 neighbours"):
    knn.make(k=5, also=(0,))
  with pytest.raises(ValueError, match="temperature=0.0 must be above 0"):
    knn.make(temperature=0.0)


def run(bank, queries, num_classes, mesh, **options):
  """Runs the task on given features: the extraction is replaced."""
  from ssl_jax.core import Weights
  from ssl_jax.tasks.backbone import Backbone, encoder_only
  from ssl_jax.tasks.task import TaskData

  data = TaskData(train="train", test="test", num_classes=num_classes)
  found = {"train": bank, "test": queries}
  return knn.make(**options).run(
    Backbone(Weights({}, {}), encoder_only(None)),
    data,
    mesh,
    jax.random.key(0),
    extract=lambda backbone, batches, mesh, **_: found[batches],
  )


def features(count, width, classes, seed):
  x = random_features(count, width, seed)
  y = np.random.default_rng(seed + 9).integers(0, classes, count).astype(np.int32)
  return Features(x, y, np.arange(count, dtype=np.int32))


@pytest.mark.parametrize("k,temperature", [(1, 0.07), (5, 0.07), (20, 0.07), (20, 1.0), (50, np.inf)])
def test_equals_scikit_learn(mesh_of, k, temperature):
  """Votes by cosine as weights of euclidean distances between unit vectors: s = 1 - d^2 / 2."""
  bank, queries = features(200, 8, 7, 0), features(90, 8, 7, 1)
  oracle = KNeighborsClassifier(k, weights=lambda d: np.exp(-(d**2) / 2 / temperature), algorithm="brute")
  oracle.fit(unit(bank.x).astype(np.float64), bank.y)
  expected = oracle.predict_proba(unit(queries.x).astype(np.float64))
  result = run(bank, queries, 7, mesh_of(8), k=k, also=(), temperature=temperature)
  if temperature < np.inf:  # equal weights give ties, which the two may break differently
    np.testing.assert_array_equal(result.predictions["prediction"], expected.argmax(1))
    assert result.scalars["top1"] == (expected.argmax(1) == queries.y).mean()
  found = Neighbours(result.predictions["similarity"], result.predictions["neighbours"])
  votes = np.maximum(vote(found, bank.y, k=k, temperature=temperature, num_classes=7), 0)
  np.testing.assert_allclose(votes / votes.sum(1, keepdims=True), expected, atol=2e-5)
  five = np.argsort(-expected, axis=1, kind="stable")[:, :5]
  voted = np.take_along_axis(expected, five, axis=1) > 0
  assert result.scalars["top5"] == ((five == queries.y[:, None]) & voted).any(1).mean()


def test_limits_of_k_and_temperature(mesh_of):
  bank, queries = features(200, 8, 5, 2), features(60, 8, 5, 3)
  nearest_label = bank.y[(unit(queries.x) @ unit(bank.x).T).argmax(1)]
  one = run(bank, queries, 5, mesh_of(1), k=1, also=())
  cold = run(bank, queries, 5, mesh_of(1), k=50, also=(), temperature=1e-5)
  warm = run(bank, queries, 5, mesh_of(1), k=50, also=(), temperature=float("inf"))
  np.testing.assert_array_equal(one.predictions["prediction"], nearest_label)
  np.testing.assert_array_equal(cold.predictions["prediction"], nearest_label)
  assert one.scalars["top1"] == one.scalars["top5"]  # one neighbour votes for one class
  counts = np.stack([np.bincount(row, minlength=5) for row in warm.predictions["neighbour_labels"]])
  np.testing.assert_array_equal(warm.predictions["prediction"], counts.argmax(1))


def test_several_k_equal_one_at_a_time_on_any_number_of_devices(mesh_of):
  bank, queries = features(150, 8, 4, 4), features(61, 8, 4, 5)
  together = run(bank, queries, 4, mesh_of(1), k=20, also=(3, 100))
  spread = run(bank, queries, 4, mesh_of(8), k=20, also=(3, 100))
  assert together.scalars == spread.scalars
  np.testing.assert_array_equal(together.predictions["neighbours"], spread.predictions["neighbours"])
  for k, suffix in ((20, ""), (3, "_k3"), (100, "_k100")):
    alone = run(bank, queries, 4, mesh_of(1), k=k, also=())
    assert alone.scalars == {name: together.scalars[name + suffix] for name in ("top1", "top5")}


def test_leave_one_out_ignores_the_test_set(mesh_of):
  bank = features(40, 8, 4, 6)
  bank = bank._replace(x=np.tile(bank.x[:20], (2, 1)), y=np.tile(bank.y[:20], 2))  # every row occurs twice
  result = run(bank, None, 4, mesh_of(1), k=1, also=(), leave_one_out=True)
  assert result.scalars["top1"] == 1.0
  assert (result.predictions["neighbours"][:, 0] != np.arange(40)).all()


def test_images_to_accuracy(dense, blobs, noise, make_data, mesh_of):
  """Separable classes are found; on noise the accuracy is at chance within three standard errors."""
  data = make_data(blobs(150, 0), blobs(70, 1), 3, class_names=("a", "b", "c"))
  result = knn.make(k=5, also=()).run(dense, data, mesh_of(8), jax.random.key(0))
  assert result.scalars["top1"] == 1.0
  wanted = {
    "task": "knn",
    "k": 5,
    "temperature": 0.07,
    "bank_rows": 150,
    "query_rows": 70,
    "dimensions": 16,
    "data": "toy",
    "backbone": "dense",
  }
  assert wanted.items() <= result.protocol.items()
  chance = knn.make(k=20, also=()).run(
    dense, make_data(noise(2000, 0), noise(1000, 1), 10), mesh_of(1), jax.random.key(0)
  )
  assert abs(chance.scalars["top1"] - 0.1) < 3 * np.sqrt(0.1 * 0.9 / 1000)


def test_unlabelled_images_are_refused(dense, blobs, make_data, mesh_of):
  images, labels = blobs(64, 0)
  data = make_data((images, labels - 1), (images, labels), 3)
  with pytest.raises(ValueError, match="labels of the training images run from -1 to 1, but there are 3"):
    knn.make(k=5, also=()).run(dense, data, mesh_of(1), jax.random.key(0))

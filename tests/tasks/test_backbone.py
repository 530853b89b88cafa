import jax
import numpy as np

from ssl_jax.tasks.backbone import digest

from .conftest import with_params


def test_digest_sees_one_bit_and_one_name(dense):
  def changed(**weights):
    return digest(with_params(dense, {**dense.weights.params, **weights}))

  weight = dense.weights.params["weight"]
  other = weight.copy()
  other[3, 4] = np.nextafter(other[3, 4], np.float32(9))
  assert digest(dense) == changed(weight=jax.numpy.asarray(weight))
  assert digest(dense) != changed(weight=other)
  assert digest(dense) != changed(weight=weight.reshape(16, 48))
  assert digest(dense) != digest(with_params(dense, {"other": weight}))
  assert digest(dense) != digest(
    dense._replace(weights=dense.weights._replace(model_state={"mean": np.zeros(48, np.float32)}))
  )
  assert changed(key=jax.random.key(0)) != changed(key=jax.random.key(1))

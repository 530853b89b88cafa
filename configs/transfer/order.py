"""The order of frames on held-back clips, beside the untrained network.

Command:   ssl-jax evaluate --config=configs/transfer/order.py --workdir=RUN
The score is the balanced accuracy, 50% by chance; its standard error, with several tuples of a clip as one
cluster, is in the result's protocol. The mined split "test" has no clip of the split "train". Of a
folder of clips, name another split: --config.data.test_split=SPLIT.
"""

from ssl_jax import EvaluateConfig, recipe


def get_config():
  return recipe(EvaluateConfig, tasks=dict(pretext=dict()), batch_size=64, baselines=("untrained",))

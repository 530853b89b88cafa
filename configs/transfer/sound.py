"""The sound around frames of clips that were held back.

Command:   ssl-jax evaluate --config=configs/transfer/sound.py --workdir=RUN
The score is the accuracy of the clusters or bits. Beside it stand the accuracies of the best constant answer
and of a guess; standard errors, with the frames of a clip as one cluster, are in the result's protocol. The
mined split "test" has no clip of the split "train". The untrained network is the baseline.
"""

from ssl_jax import EvaluateConfig, recipe


def get_config():
  return recipe(EvaluateConfig, tasks=dict(sound=dict()), batch_size=64, baselines=("untrained",))

r"""Retrieval of a track's last patch among 50, by its first.

Command:   ssl-jax evaluate --config=configs/transfer/same_track.py --workdir=RUN
           ssl-jax evaluate --config=configs/transfer/same_track.py --workdir=RUN --config.data.name=tracks \
             --config.data.data_dir=DIR
           The second form measures a network of any method on the mined tracks in DIR.
The score is the fraction of tracks whose own patch is the nearest of 50, the others being of other clips.
Scores among the tracks of the same clip stand beside it, and standard errors, with the tracks of a clip as
one cluster, in the result's protocol. The mined split "test" has no clip of the split "train".
"""

from ssl_jax import EvaluateConfig, recipe


def get_config():
  return recipe(
    EvaluateConfig,
    tasks=dict(same_track=dict()),
    batch_size=64,
    baselines=("pixels", "colour_histogram", "colour_statistics", "untrained"),
  )

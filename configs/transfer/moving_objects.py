r"""Moving objects segmented in single frames, against true masks.

Command:   ssl-jax evaluate --config=configs/transfer/moving_objects.py --workdir=RUN \
             --config.data.data_dir=FRAMES
FRAMES is a mask_folder with the classes background and moving, such as DAVIS' frames as `python
tests/benchmarks/real_data.py davis SHARED_DATA FOLDER` writes them. The score that counts is the intersection
over union of the class "moving"; it is in the protocol of the result.
"""

from ssl_jax import EvaluateConfig, recipe


def get_config():
  return recipe(
    EvaluateConfig,
    tasks=dict(segmentation=dict()),
    data=dict(name="mask_folder", test_split="test"),
    batch_size=16,
    baselines=("untrained",),
  )

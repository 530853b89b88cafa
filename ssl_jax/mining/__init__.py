"""Mining: makes a data set for a pretext task out of a folder of clips, by `ssl-jax prepare MINER`.

Each file in `miners/` is one miner. To add one, write `miners/NAME.py` with a function
`make(*, option=default, ...) -> Miner`; `ssl-jax prepare NAME option=value --data_dir=CLIPS --output=DIR` and
the tests find it without any list of names. The file is loaded by every worker process, so it must not import
jax; it imports OpenCV or TFDS inside of the functions that need them. See `miner.Miner` for what a miner is:

- `mine(clip, rng)` gets one opened clip (`video.clips.Clip`) and returns its records and, by reason, how many
  candidates it rejected. It may draw from `rng` only, which depends on the seed and on the clip's path; it
  must hold only a bounded number of frames in memory. It raises DecodeError for a clip that it cannot use at
  all.
- `features()` returns the TFDS features of a record. Values of records are: an encoded image (bytes), a list
  of encoded images, text, a number, or an array. `miner.encode_jpeg` and `miner.encode_png` encode pixels.
  The source that reads TFDS data sets delivers Image "image", ClassLabel "label", masks, and under their own
  names arrays (Tensor) and Sequence(Image) (see data/tfds_arrays.py).
- `rows(records)` makes the rows of the picture sheet out of a few records of the whole data set.
- `fit(records)`, if targets depend on all training clips, gets the records of those once and returns how each
  record is completed.

`runner.run` does the rest for all miners: worker processes, progress, resuming clip by clip, bad clips,
statistics, held-back clips, and files. Records get the field "clip", the clip's path, in addition.
"""

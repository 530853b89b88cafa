"""A trained network applied to new images: their features, and what it says of them.

embed, predict: the functions behind the commands of the same names. new_images: which images. encoding, rows:
passes over them that continue where they stopped. learning: a network that learns while it predicts. maps,
boxes: what segmenters and detectors say. feature_files, tables, pictures: what is written.
"""

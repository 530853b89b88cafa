"""Detection primitives with static shapes: pure functions that work under jit and vmap.

Boxes are (x1, y1, x2, y2) in continuous pixel coordinates, float32. No shape depends on data: arrays have a
fixed number of rows and a mask that says which rows are valid. The content of other rows is never read.
Functions take one image; `jax.vmap` makes them take a batch. Profiles and plans show the expensive ones by
their names, as named scopes.

boxes: area, IoU, encoding, clipping, mirroring. anchors: grids of anchors. matcher: which ground truth an
anchor or a proposal belongs to. sampler: random subsamples of fixed size. nms: exact non-maximum suppression
in tiles. proposals: of a region proposal network, and the RoIs that train the heads. detections: the boxes
that a detector reports. roi_align: features of RoIs. masks: targets of mask heads, and masks as pixels.
losses: of the RPN and of the heads. densepose_losses: of DensePose's dense head. rules: the numbers and
conventions of detectron2 and torchvision.
"""

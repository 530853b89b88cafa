"""Parameters of the corruptions for severities 1 to 5: ImageNet-C (224 pixels) and CIFAR-10-C (32 pixels).

Source: Hendrycks & Dietterich 2019, released code.
"""

PARAMETERS = {
  "gaussian_noise": dict(  # standard deviation
    imagenet=(0.08, 0.12, 0.18, 0.26, 0.38), cifar=(0.04, 0.06, 0.08, 0.09, 0.10)
  ),
  "shot_noise": dict(imagenet=(60, 25, 12, 5, 3), cifar=(500, 250, 100, 75, 50)),  # photons of a white pixel
  "impulse_noise": dict(  # fraction of the values that change
    imagenet=(0.03, 0.06, 0.09, 0.17, 0.27), cifar=(0.01, 0.02, 0.03, 0.05, 0.07)
  ),
  "speckle_noise": dict(  # standard deviation
    imagenet=(0.15, 0.2, 0.35, 0.45, 0.6), cifar=(0.06, 0.1, 0.12, 0.16, 0.2)
  ),
  "gaussian_blur": dict(imagenet=(1, 2, 3, 4, 6), cifar=(0.4, 0.6, 0.7, 0.8, 1)),  # sigma, pixels
  "defocus_blur": dict(  # radius of the disk, sigma of its smoothing, in pixels
    imagenet=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    cifar=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
  ),
  "glass_blur": dict(  # sigma, largest displacement, number of passes
    imagenet=((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    cifar=((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
  ),
  "motion_blur": dict(  # radius, sigma
    imagenet=((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    cifar=((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
  ),
  "zoom_blur": dict(  # number of zoom factors, the step between them; the first is 1
    imagenet=((12, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03)),
    cifar=((7, 0.01), (12, 0.01), (16, 0.01), (21, 0.01), (26, 0.01)),
  ),
  # mean and deviation of the noise, zoom, threshold, radius and sigma of the motion, weight of the image
  "snow": dict(
    imagenet=(
      (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
      (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
      (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
      (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
      (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    cifar=(
      (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
      (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
      (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
      (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
      (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
  ),
  "frost": dict(  # weight of the image, weight of the frost
    imagenet=((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    cifar=((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
  ),
  "fog": dict(  # strength, decay of the roughness
    imagenet=((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    cifar=((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
  ),
  "brightness": dict(  # added to the V of HSV
    imagenet=(0.1, 0.2, 0.3, 0.4, 0.5), cifar=(0.05, 0.1, 0.15, 0.2, 0.3)
  ),
  "contrast": dict(imagenet=(0.4, 0.3, 0.2, 0.1, 0.05), cifar=(0.75, 0.5, 0.4, 0.3, 0.15)),  # factor
  "elastic_transform": dict(  # displacement, sigma of its smoothing, jitter of the affine map, in pixels
    imagenet=(
      (488, 170.8, 24.4),
      (488, 19.52, 48.8),
      (12.2, 2.44, 4.88),
      (17.08, 2.44, 4.88),
      (29.28, 2.44, 4.88),
    ),
    cifar=((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)),
  ),
  "pixelate": dict(  # remaining fraction of the side
    imagenet=(0.6, 0.5, 0.4, 0.3, 0.25), cifar=(0.95, 0.9, 0.85, 0.75, 0.65)
  ),
  "jpeg_compression": dict(imagenet=(25, 18, 15, 10, 7), cifar=(80, 65, 58, 50, 40)),  # quality
  # mean, deviation and smoothing sigma of the liquid, its threshold, strength of the reflection (water) or
  # sigma of the edge (mud), 1 for mud
  "spatter": dict(
    imagenet=(
      (0.65, 0.3, 4, 0.69, 0.6, 0),
      (0.65, 0.3, 3, 0.68, 0.6, 0),
      (0.65, 0.3, 2, 0.68, 0.5, 0),
      (0.65, 0.3, 1, 0.65, 1.5, 1),
      (0.67, 0.4, 1, 0.65, 1.5, 1),
    ),
    cifar=(
      (0.62, 0.1, 0.7, 0.7, 0.5, 0),
      (0.65, 0.1, 0.8, 0.7, 0.5, 0),
      (0.65, 0.3, 1, 0.69, 0.5, 0),
      (0.65, 0.1, 0.7, 0.69, 0.6, 1),
      (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ),
  ),
  "saturate": dict(  # factor and shift of the S of HSV
    imagenet=((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    cifar=((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
  ),
}

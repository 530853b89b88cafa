"""Parameters of the corruptions by severity, 1 to 5: of ImageNet-C for 224 pixels, of CIFAR-10-C for 32.

Source: Hendrycks & Dietterich 2019, released code.
"""

PARAMETERS = {
    "gaussian_noise": dict(imagenet=(.08, .12, .18, .26, .38), cifar=(.04, .06, .08, .09, .10)),  # sigma
    "shot_noise": dict(imagenet=(60, 25, 12, 5, 3), cifar=(500, 250, 100, 75, 50)),  # photons of a white pixel
    "impulse_noise": dict(imagenet=(.03, .06, .09, .17, .27), cifar=(.01, .02, .03, .05, .07)),  # share of values
    "speckle_noise": dict(imagenet=(.15, .2, .35, .45, .6), cifar=(.06, .1, .12, .16, .2)),  # sigma
    "gaussian_blur": dict(imagenet=(1, 2, 3, 4, 6), cifar=(.4, .6, .7, .8, 1)),  # sigma
    "defocus_blur": dict(  # radius of the disk, sigma of its smoothing
        imagenet=((3, .1), (4, .5), (6, .5), (8, .5), (10, .5)), cifar=((.3, .4), (.4, .5), (.5, .6), (1, .2), (1.5, .1))),
    "glass_blur": dict(  # sigma, reach, passes
        imagenet=((.7, 1, 2), (.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        cifar=((.05, 1, 1), (.25, 1, 1), (.4, 1, 1), (.25, 1, 2), (.4, 1, 2))),
    "motion_blur": dict(  # radius, sigma
        imagenet=((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)), cifar=((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    "zoom_blur": dict(  # number of factors from 1 on, their distance
        imagenet=((12, .01), (16, .01), (11, .02), (13, .02), (11, .03)),
        cifar=((7, .01), (12, .01), (16, .01), (21, .01), (26, .01))),
    "snow": dict(  # mean, deviation, zoom, threshold, radius and sigma of the motion, share of the image kept
        imagenet=((.1, .3, 3, .5, 10, 4, .8), (.2, .3, 2, .5, 12, 4, .7), (.55, .3, 4, .9, 12, 8, .7),
                  (.55, .3, 4.5, .85, 12, 8, .65), (.55, .3, 2.5, .85, 12, 12, .55)),
        cifar=((.1, .2, 1, .6, 8, 3, .95), (.1, .2, 1, .5, 10, 4, .9), (.15, .3, 1.75, .55, 10, 4, .9),
               (.25, .3, 2.25, .6, 12, 6, .85), (.3, .3, 1.25, .65, 14, 12, .8))),
    "frost": dict(  # weight of the image, of the frost
        imagenet=((1, .4), (.8, .6), (.7, .7), (.65, .7), (.6, .75)), cifar=((1, .2), (1, .3), (.9, .4), (.85, .4), (.75, .45))),
    "fog": dict(  # strength, decay of the roughness
        imagenet=((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)), cifar=((.2, 3), (.5, 3), (.75, 2.5), (1, 2), (1.5, 1.75))),
    "brightness": dict(imagenet=(.1, .2, .3, .4, .5), cifar=(.05, .1, .15, .2, .3)),  # added to the V of HSV
    "contrast": dict(imagenet=(.4, .3, .2, .1, .05), cifar=(.75, .5, .4, .3, .15)),  # factor
    "elastic_transform": dict(  # displacement, its sigma, jitter of the affine map
        imagenet=((488, 170.8, 24.4), (488, 19.52, 48.8), (12.2, 2.44, 4.88), (17.08, 2.44, 4.88), (29.28, 2.44, 4.88)),
        cifar=((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, .96, .96))),
    "pixelate": dict(imagenet=(.6, .5, .4, .3, .25), cifar=(.95, .9, .85, .75, .65)),  # share of the side left
    "jpeg_compression": dict(imagenet=(25, 18, 15, 10, 7), cifar=(80, 65, 58, 50, 40)),  # quality
    "spatter": dict(  # mean, deviation and sigma of the liquid, its threshold, strength or sigma of the edge, whether it is mud
        imagenet=((.65, .3, 4, .69, .6, 0), (.65, .3, 3, .68, .6, 0), (.65, .3, 2, .68, .5, 0), (.65, .3, 1, .65, 1.5, 1),
                  (.67, .4, 1, .65, 1.5, 1)),
        cifar=((.62, .1, .7, .7, .5, 0), (.65, .1, .8, .7, .5, 0), (.65, .3, 1, .69, .5, 0), (.65, .1, .7, .69, .6, 1),
               (.65, .1, .5, .68, .6, 1))),
    "saturate": dict(  # factor, shift of the S of HSV
        imagenet=((.3, 0), (.1, 0), (2, 0), (5, .1), (20, .2)), cifar=((.3, 0), (.1, 0), (1.5, 0), (2, .1), (2.5, .2))),
}

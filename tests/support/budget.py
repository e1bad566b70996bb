"""The memory that an image needs."""

from gpusift.pipeline.plan import Key, bytes_of


def whole_bytes(sift, image, **options):
    return bytes_of(sift.device, sift.parameters, Key(1, image.shape, **options))

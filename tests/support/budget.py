"""The memory that an image needs."""

from gpusift.pipeline.key import Key
from gpusift.pipeline.plan import bytes_of


def whole_bytes(sift, image, **options):
    return bytes_of(sift.device, sift.parameters, Key(1, image.shape, **options))

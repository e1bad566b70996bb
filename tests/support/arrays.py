"""SIFT's arrays of an image, and their comparison byte by byte."""

from gpusift import SIFT
from tests.support import oracle

COLUMNS = ("positions", "sigmas", "scales", "octaves", "orientations", "descriptors")
IMAGE = oracle.photograph("coins")[:150, :200]


def assert_equal_bytes(ours, others):
    for name in COLUMNS:
        a, b = getattr(ours, name), getattr(others, name)
        assert a.dtype == b.dtype, name
        assert a.shape == b.shape, name
        assert a.tobytes() == b.tobytes(), name


def extracted(image, **options):
    sift = SIFT(**options)
    sift.detect_and_extract(image)
    return sift

"""The tests of gpusift, in the same packages as gpusift's own modules."""

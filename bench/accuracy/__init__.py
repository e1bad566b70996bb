"""Matching accuracy, conformance with scikit-image, and reconstructions."""

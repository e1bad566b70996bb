"""Measurements of gpusift: speed, memory, accuracy, kernels and batch runs."""

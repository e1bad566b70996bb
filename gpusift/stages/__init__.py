"""The stages of SIFT, one module each: shapes, buffers and launches of the kernels of the same name."""

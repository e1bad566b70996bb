"""SciPy on a device."""

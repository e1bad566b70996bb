"""The float functions of kernels/arithmetic.cuh are as near as it says, and the software fma rounds right."""

import ctypes
import subprocess
from fractions import Fraction

import numpy as np
import pytest

from gpusift.devices import kernel_sources

HARNESS = r"""
#define REAL float
#include "arithmetic.cuh"
#define EXPORT extern "C" __attribute__((visibility("default"))) void
EXPORT powers(int n, const float* x, float* out) { for (int i = 0; i < n; ++i) out[i] = power_of_two(x[i]); }
EXPORT exponentials(int n, const float* x, float* out) { for (int i = 0; i < n; ++i) out[i] = exponential(x[i]); }
EXPORT arctangents(int n, const float* y, const float* x, float* out) {
    for (int i = 0; i < n; ++i) out[i] = arctangent(y[i], x[i]);
}
EXPORT sines(int n, const float* x, float* s, float* c) { for (int i = 0; i < n; ++i) sine_cosine(x[i], s + i, c + i); }
EXPORT software_fmas(int n, const float* a, const float* b, const float* c, float* out) {
    for (int i = 0; i < n; ++i) out[i] = software_fmaf(a[i], b[i], c[i]);
}
EXPORT exponents(int n, const float* x, int* out) { for (int i = 0; i < n; ++i) out[i] = exponent_above(x[i]); }
EXPORT reflections(int n, const int* i, const int* size, int* out) {
    for (int k = 0; k < n; ++k) out[k] = reflect(i[k], size[k]);
}
"""


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    """Compiles the functions and returns one that calls them: name, inputs, number of outputs, their dtype."""
    folder = tmp_path_factory.mktemp("arithmetic")
    (folder / "harness.cpp").write_text(HARNESS)
    flags = ["-std=c++17", "-O2", "-shared", "-fPIC", "-ffp-contract=off", "-Wno-unused-function"]
    command = [
        "c++",
        *flags,
        f"-I{kernel_sources.folder()}",
        str(folder / "harness.cpp"),
        "-o",
        str(folder / "harness.so"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    library = ctypes.CDLL(str(folder / "harness.so"))

    def run(name, *inputs, outputs=1, dtype=np.float32):
        arrays = [np.ascontiguousarray(array) for array in inputs]
        results = [np.empty(arrays[0].size, dtype) for _ in range(outputs)]
        getattr(library, name)(arrays[0].size, *(ctypes.c_void_p(a.ctypes.data) for a in arrays + results))
        return results if outputs > 1 else results[0]

    return run


def test_power_of_two(call):
    x = np.linspace(-126, 126, 1_000_003).astype(np.float32)
    error = call("powers", x) / np.exp2(x.astype(np.float64)) - 1
    assert np.abs(error).max() <= 1.2e-7
    np.testing.assert_array_equal(call("powers", np.arange(-126, 127, dtype=np.float32)), 2.0 ** np.arange(-126, 127))
    np.testing.assert_array_equal(call("powers", np.float32([-500, 500])), np.float32([2.0**-126, 2.0**126]))


def test_exponential(call):
    x = -np.linspace(0, 10, 1_000_003).astype(np.float32)
    error = call("exponentials", x) / np.exp(x.astype(np.float64)) - 1
    assert np.abs(error).max() <= 1e-6
    assert call("exponentials", np.float32([0]))[0] == 1


def test_arctangent(call):
    angle = np.linspace(-np.pi, np.pi, 1_000_003)
    y, x = np.sin(angle).astype(np.float32), np.cos(angle).astype(np.float32)
    exact = np.arctan2(y.astype(np.float64), x.astype(np.float64))
    assert np.abs(call("arctangents", y, x) - exact).max() <= 4e-7
    # where directions are exact they fall on the right side of a bin's edge
    y, x = np.float32([0, 1, 1, 1, 0, -1, -1, -1, 0]), np.float32([1, 1, 0, -1, -1, -1, 0, 1, 0])
    exact = np.arctan2(y.astype(np.float64), x.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(call("arctangents", y, x), exact)


def test_sine_cosine(call):
    x = np.linspace(-4, 4, 1_000_003).astype(np.float32)
    sine, cosine = call("sines", x, outputs=2)
    assert np.abs(sine - np.sin(x.astype(np.float64))).max() <= 2e-7
    assert np.abs(cosine - np.cos(x.astype(np.float64))).max() <= 2e-7


def test_software_fma_is_rounded_once(call):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 20_000)).astype(np.float32)
    c = (-a.astype(np.float64) * b * rng.choice([1, 1 + 1e-7, 1e-3, 1e7], a.size)).astype(np.float32)
    c[::7] = np.float32(1)  # sums half-way between floats, but for the last bits of the product
    a[::7] = 1 + rng.integers(0, 4096, a[::7].size).astype(np.float32) * np.float32(2.0**-12)
    b[::7] = np.float32(2.0**-24)
    ours = call("software_fmas", a, b, c)
    for i in range(a.size):
        exact = Fraction(float(a[i])) * Fraction(float(b[i])) + Fraction(float(c[i]))
        near = [ours[i], np.nextafter(ours[i], np.float32(-np.inf)), np.nextafter(ours[i], np.float32(np.inf))]
        errors = [abs(Fraction(float(value)) - exact) for value in near]
        assert errors[0] == min(errors), (a[i], b[i], c[i])


def test_exponent_above(call):
    x = np.float32([1e-30, 0.5, 0.50001, 1, 1.5, 2, 3, 1e30])
    exponent = call("exponents", x, dtype=np.int32)
    assert np.all(x < 2.0**exponent)
    assert np.all(2.0**exponent <= 2 * x.astype(np.float64))


def test_reflect_is_numpys_symmetric_padding(call):
    for size in (1, 2, 3, 7):
        i = np.arange(-20, 20, dtype=np.int32)
        expected = np.pad(np.arange(size), 20, mode="symmetric")[: i.size]
        ours = call("reflections", i, np.full(i.size, size, np.int32), dtype=np.int32)
        np.testing.assert_array_equal(ours, expected)

// Arithmetic with identical results on every device, fixed-point sums, and index arithmetic.
//
// In float, each operation below is one that IEEE 754 rounds in exactly one way (+ - * / sqrt fma and conversions). All
// compilers have contraction off, subnormals are flushed to zero, and exp, 2^x, sin, cos and atan2 are polynomials of
// this file. A result is therefore the same bytes on every CPU and every GPU. In double, for conformance with
// scikit-image, the functions are the library's.
#pragma once
#include "platform.cuh"

// The layout of a floating-point number, and the fixed-point type of the same size.
template <typename T>
struct Bits;
template <>
struct Bits<float> {
    using integer = int;
    static const int mantissa = 23, bias = 127, sum_bits = 30;
};
template <>
struct Bits<double> {
    using integer = long long;
    static const int mantissa = 52, bias = 1023, sum_bits = 62;
};

// The type of sums that many threads add to, in no fixed order: integers, so the order does not matter.
using fixed = Bits<real>::integer;

const real PI = real(3.14159265358979323846);
const real TWO_PI = real(6.28318530717958647693);

// The bits of a number as an integer, and back. Positive numbers compare as their bits do.
DEVICE int bits_of(float x) { return __float_as_int(x); }
DEVICE long long bits_of(double x) { return __double_as_longlong(x); }
DEVICE float from_bits(int x) { return __int_as_float(x); }
DEVICE double from_bits(long long x) { return __longlong_as_double(x); }

// The nearest integer, ties to even.
DEVICE int to_fixed(float x) { return __float2int_rn(x); }
DEVICE long long to_fixed(double x) { return __double2ll_rn(x); }

// Adds to a sum in shared memory.
DEVICE void add_to(int* sum, int value) { atomicAdd_block(sum, value); }
DEVICE void add_to(long long* sum, long long value) {
    atomicAdd_block((unsigned long long*)sum, (unsigned long long)value);
}

DEVICE float fused(float a, float b, float c) { return fmaf(a, b, c); }  // a * b + c, rounded once
DEVICE double fused(double a, double b, double c) { return fma(a, b, c); }
DEVICE float root(float x) { return sqrtf(x); }
DEVICE double root(double x) { return sqrt(x); }
DEVICE float magnitude_of(float x) { return fabsf(x); }
DEVICE double magnitude_of(double x) { return fabs(x); }
DEVICE float floor_of(float x) { return floorf(x); }
DEVICE double floor_of(double x) { return floor(x); }
DEVICE float whole_part(float x) { return truncf(x); }
DEVICE double whole_part(double x) { return trunc(x); }
DEVICE float nearest_to(float x) { return rintf(x); }
DEVICE double nearest_to(double x) { return rint(x); }

template <typename T>
DEVICE T smaller(T a, T b) {
    return a < b ? a : b;
}
template <typename T>
DEVICE T larger(T a, T b) {
    return a > b ? a : b;
}

// `sum` plus the dot product of two words of four unsigned bytes.
DEVICE int add_products(int a, int b, int sum) { return int(__dp4a(unsigned(a), unsigned(b), unsigned(sum))); }

// 2^x; relative error at most 1.2e-7 for |x| <= 126, clamped beyond.
DEVICE float power_of_two(float x) {
    x = smaller(larger(x, -126.0f), 126.0f);
    const float whole = rintf(x), part = x - whole;
    float sum = 0.00015478022f;
    sum = fmaf(sum, part, 0.0013400431f);
    sum = fmaf(sum, part, 0.0096179945f);
    sum = fmaf(sum, part, 0.055503272f);
    sum = fmaf(sum, part, 0.24022652f);
    sum = fmaf(sum, part, 0.69314718f);
    sum = fmaf(sum, part, 1.0f);
    return sum * from_bits((int(whole) + 127) << 23);
}
DEVICE double power_of_two(double x) { return exp2(x); }

// e^x for x <= 0; error at most 1e-6 of the value at x = -10, growing with |x| as the product with log2(e) is rounded.
DEVICE float exponential(float x) { return power_of_two(x * 1.44269504f); }
DEVICE double exponential(double x) { return exp(x); }

// Angle of (x, y) in (-pi, pi], 0 for (0, 0); absolute error at most 4e-7 rad.
DEVICE float arctangent(float y, float x) {
    const float across = fabsf(x), along = fabsf(y);
    const float small = smaller(across, along), large = larger(across, along);
    const float ratio = small / (large > 0.0f ? large : 1.0f);
    const float square = ratio * ratio;
    float sum = 0.0029035525f;
    sum = fmaf(sum, square, -0.016283007f);
    sum = fmaf(sum, square, 0.043039367f);
    sum = fmaf(sum, square, -0.075336762f);
    sum = fmaf(sum, square, 0.10654677f);
    sum = fmaf(sum, square, -0.14207134f);
    sum = fmaf(sum, square, 0.19993053f);
    sum = fmaf(sum, square, -0.33333093f);
    sum = fmaf(sum * square, ratio, ratio);
    sum = along > across ? 1.57079633f - sum : sum;
    sum = x < 0.0f ? 3.14159265f - sum : sum;
    return y < 0.0f ? -sum : sum;
}
DEVICE double arctangent(double y, double x) { return atan2(y, x); }

// Sine and cosine for |x| <= 4; absolute error at most 2e-7.
DEVICE void sine_cosine(float x, float* sine, float* cosine) {
    const float quarters = rintf(x * 0.636619772f);
    float part = fmaf(quarters, -1.57079637f, x);  // pi / 2 in two pieces
    part = fmaf(quarters, 4.37113883e-8f, part);
    const float square = part * part;
    float s = -0.00019504022f;
    s = fmaf(s, square, 0.0083320364f);
    s = fmaf(s, square, -0.16666651f);
    s = fmaf(s * square, part, part);
    float c = 2.4379930e-05f;
    c = fmaf(c, square, -0.0013886619f);
    c = fmaf(c, square, 0.041666616f);
    c = fmaf(c, square, -0.5f);
    c = fmaf(c, square, 1.0f);
    const int quarter = int(quarters) & 3;
    const float swapped_s = quarter & 1 ? c : s, swapped_c = quarter & 1 ? s : c;
    *sine = quarter & 2 ? -swapped_s : swapped_s;
    *cosine = (quarter + 1) & 2 ? -swapped_c : swapped_c;
}
DEVICE void sine_cosine(double x, double* sine, double* cosine) {
    *sine = sin(x);
    *cosine = cos(x);
}

// The exponent e of the smallest power of two above a positive normal number: x < 2^e <= 2 x.
DEVICE int exponent_above(real x) { return int(bits_of(x) >> Bits<real>::mantissa) - Bits<real>::bias + 1; }

// 2^exponent; the exponent is clamped to those of normal numbers.
DEVICE real scale_of(int exponent) {
    exponent = smaller(larger(exponent, 1 - Bits<real>::bias), Bits<real>::bias);
    return from_bits(fixed(exponent + Bits<real>::bias) << Bits<real>::mantissa);
}

// The exponent of the scale at which `n` values of at most `largest` > 0 add up to less than 2^sum_bits.
DEVICE int fixed_exponent(real n, real largest) {
    return Bits<real>::sum_bits - exponent_above(n) - exponent_above(largest);
}

// The index in [0, n) that i becomes when a row is reflected at its edges, as often as necessary:
// (d c b a | a b c d | d c b a), SciPy's "reflect".
DEVICE int reflect(int i, int n) {
    while (i < 0 || i >= n) i = i < 0 ? -1 - i : 2 * n - 1 - i;
    return i;
}

// The integer part of x, clamped to [-1, most] before the conversion, which is undefined for a large x.
DEVICE int whole_within(real x, int most) { return int(smaller(larger(x, real(-1)), real(most))); }

DEVICE int ceil_div(int a, int b) { return (a + b - 1) / b; }

// The parts of CUDA that the kernels use, for a C++ compiler of the host. Only this folder knows that CPUs exist.
#pragma once

#include <cmath>
#include <cstdint>
#include <thread>

#define KERNEL static void
#define KERNEL_OF(CONSTANT) \
    template <int CONSTANT> \
    static void
#define DEVICE static inline __attribute__((always_inline))
#define DEVICE_MEMBER inline __attribute__((always_inline))
#define INLINED __attribute__((always_inline))
#define __restrict__ __restrict
#define OUTLINED static __attribute__((noinline))
#define UNROLL _Pragma("GCC unroll 64")
#define ONE_BY_ONE _Pragma("GCC unroll 1")

struct Index3 {
    int x = 0, y = 0, z = 0;
};

// Sizes that a GPU's compiler receives as -D. The CPU's tiles suit its caches; its arrays have room for the largest
// parameters, where a GPU's are compiled for the parameters in use.
#ifndef BLUR_TILE_ROWS
#define BLUR_TILE_ROWS 16
#define BLUR_TILE_COLS 1024
#define BLUR_ROWS 8
#define BLUR_COLUMN_SPAN 4096
#define BLUR_ROW_SPAN 1024
#define BLUR_ROW_PARTS 1
#define ENLARGED_SPAN 1
#define EXTREMA_TILE_ROWS 16
#define EXTREMA_TILE_COLS 512
#define EXTREMA_SCALES 1
#define EXTREMA_SPAN 4096
#define PATCH 128
#define MATCH_STRIPS 1
#define MATCH_OTHERS 4
#define MATCH_GROUPS 1
#define MATCH_BYTES 2048
#define MATCH_PADDING 0          // a GPU's spreads a descriptor's parts over the banks of shared memory
#define MATCH_OTHERS_ADJACENT 0  // a GPU's threads read one part of several others at once, a CPU's the parts of one
#if defined(__AVX512BW__)
#define MATCH_VECTORS 4
#else
#define MATCH_VECTORS 2
#endif
#endif
#define MAXIMUM(a, b) larger(a, b)
#define MINIMUM(a, b) smaller(a, b)
#define MAX_RADIUS 320
#define MAX_FUSED_RADIUS 8
#define MAX_BINS 720
#define MAX_VALUES 3072
#define MAX_POOLED MAX_VALUES

#ifdef EMULATED_THREADS
#include "emulated_threads.hpp"
#else
#include "vectors.hpp"
#endif

template <typename To, typename From>
DEVICE To reinterpret_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    return __builtin_bit_cast(To, from);
}
DEVICE int __float_as_int(float x) { return reinterpret_bits<int>(x); }
DEVICE float __int_as_float(int x) { return reinterpret_bits<float>(x); }
DEVICE long long __double_as_longlong(double x) { return reinterpret_bits<long long>(x); }
DEVICE double __longlong_as_double(long long x) { return reinterpret_bits<double>(x); }
#ifdef __clang__
DEVICE int nearest(float x) { return int(rintf(x)); }
#else
DEVICE int nearest(float x) { return __builtin_irintf(x); }  // one instruction, also for a vector
#endif
DEVICE int __float2int_rn(float x) { return nearest(x); }
DEVICE long long __double2ll_rn(double x) { return (long long)rint(x); }
DEVICE unsigned __dp4a(unsigned a, unsigned b, unsigned sum) {
    for (int shift = 0; shift < 32; shift += 8) sum += (a >> shift & 255) * (b >> shift & 255);
    return sum;
}

// a * b + c rounded once, for processors without the instruction: the product is exact in double, and the sum is
// rounded to odd, so that rounding it again to float gives the right result (Boldo & Melquiond 2008).
DEVICE float software_fmaf(float a, float b, float c) {
    const double product = double(a) * double(b);
    const double sum = product + double(c);
    const double second = sum - product;
    const double error = (product - (sum - second)) + (double(c) - second);
    const int64_t bits = reinterpret_bits<int64_t>(sum);
    const int64_t step = (error > 0) == (sum > 0) ? 1 : -1;
    const bool to_odd = error != 0 && (bits & 1) == 0;
    return float(reinterpret_bits<double>(bits + (to_odd ? step : 0)));
}
#if !defined(__FMA__) && !defined(__ARM_FEATURE_FMA)
#define fmaf software_fmaf
#endif

// The radii for which blurs are compiled; where fma is software, none, as unrolling it takes a compiler minutes.
#if defined(fmaf) && !defined(EMULATED_THREADS)
#define BLUR_RADII 0
#else
#define BLUR_RADII 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0
#endif

DEVICE int load_acquire(const int* counter) { return __atomic_load_n(counter, __ATOMIC_ACQUIRE); }
DEVICE void add_release(int* counter) { __atomic_fetch_add(counter, 1, __ATOMIC_RELEASE); }
DEVICE void pause_thread() { std::this_thread::yield(); }

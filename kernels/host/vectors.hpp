// The CPU device: a block is one thread. blockDim is the constant 1, shared arrays are locals, barriers vanish, and a
// thread takes LANES samples at a time in loops that the compiler turns into vector instructions.
#pragma once

#define PLATFORM_HAS_VECTORS

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define MAX_SUMS 12288
#define VECTORIZE _Pragma("GCC ivdep") _Pragma("GCC unroll 1")
#define ALIGNED LANES
#define COPIES_TILES false  // a cache holds them
#define FOR_SAMPLES(index, count, most) \
    VECTORIZE                           \
    for (int index = 0; index < (count); ++index)
#define __shared__ alignas(64)
static constexpr Index3 threadIdx{0, 0, 0};
static constexpr Index3 blockDim{1, 1, 1};
static thread_local Index3 blockIdx, gridDim;
DEVICE void __syncthreads() {}

// Samples are taken in vectors. Those of several rows, of up to PATCH samples each, are gathered into up to STRIP, so
// that rows of few samples fill vectors too. Loops run over whole vectors of LANES.
#define LANES 16
#define STRIP 512
template <typename T>
using PerSample = T[STRIP];
template <typename T>
using PerLane = T[LANES];
DEVICE int whole_vectors(int count) { return (count + LANES - 1) / LANES * LANES; }
DEVICE int lanes_of(int n) { return n < LANES ? n : LANES; }

template <typename Visit>
DEVICE void for_each_lane(const Visit& visit) {
    VECTORIZE
    for (int lane = 0; lane < LANES; ++lane) visit(lane);
}

template <typename Visit>
DEVICE void for_each_sample(int count, const Visit& visit) {
    const int end = whole_vectors(count);
    VECTORIZE
    for (int i = 0; i < end; ++i) visit(i);
}

template <typename Visit>
DEVICE void for_each_sample_in_turn(int count, const Visit& visit) {
    for (int i = 0; i < count; ++i) visit(i);
}

template <typename Begin, typename Take, typename Use>
DEVICE void for_each_strip(int row_0, int row_1, const Begin& begin, const Take& take, const Use& use) {
    int row = row_0;
    while (row < row_1) {
        int count = 0;
        for (; row < row_1 && count <= STRIP - PATCH; ++row) {
            const auto of_row = begin(row);
            const int n = of_row.end - of_row.first;
            take(of_row, row, of_row.first, count, n);
            count += n;
        }
        use(count);
    }
}

template <typename T>
DEVICE void prefetch(const T* samples, int count) {
    for (int lane = 0; lane < count; lane += LANES) __builtin_prefetch(samples + lane);
}

#define PLATFORM_HELD_SUMS "host/held_sums.hpp"

// A vector register, for sums that must stay in registers.
#if defined(__AVX512BW__)
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
template <typename T>
struct VectorOf {
    typedef T type __attribute__((vector_size(VECTOR_BYTES)));
};

// Bytes are multiplied as 16-bit numbers: the even bytes of a word are part 0, the odd ones part 1.
#define WORD_PARTS 2
DEVICE int part_of(int word, int part) { return word >> 8 * part & 0x00ff00ff; }
DEVICE VectorOf<int>::type add_products(VectorOf<int>::type a, int b, VectorOf<int>::type sums) {
#if defined(__AVX512BW__)
    return sums + VectorOf<int>::type(_mm512_madd_epi16(__m512i(a), _mm512_set1_epi32(b)));
#elif defined(__AVX2__)
    return sums + VectorOf<int>::type(_mm256_madd_epi16(__m256i(a), _mm256_set1_epi32(b)));
#elif defined(__SSE2__)
    return sums + VectorOf<int>::type(_mm_madd_epi16(__m128i(a), _mm_set1_epi32(b)));
#else
    return sums + (a & 0xffff) * (b & 0xffff) + (a >> 16) * (b >> 16);
#endif
}

template <typename T>
DEVICE T atomicAdd(T* to, T value) {
    return __atomic_fetch_add(to, value, __ATOMIC_RELAXED);
}
template <typename T>
DEVICE void atomicAdd_block(T* to, T value) {
    *to += value;
}
template <typename T>
DEVICE void atomicMax_block(T* to, T value) {
    *to = *to < value ? value : *to;
}

// The CPU device: a block is one thread. blockDim is the constant 1, shared arrays are locals, barriers vanish, and a
// thread takes LANES samples at a time in loops that the compiler turns into vector instructions.
#pragma once

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define MAX_SUMS 12288
#define LANES 16
#define STRIP 512
#define SPAN 128
#define VECTORIZE _Pragma("GCC ivdep") _Pragma("GCC unroll 1")
#define __shared__ alignas(64)
static constexpr Index3 threadIdx{0, 0, 0};
static constexpr Index3 blockDim{1, 1, 1};
static thread_local Index3 blockIdx, gridDim;
DEVICE void __syncthreads() {}

// A vector register, for loops over sums that must stay in registers.
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

// Bytes are multiplied as 16-bit numbers: of the four in a word first those at even places, then those at odd ones.
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

#if defined(__AVX2__)
// A vector of each of four rows, from `first` on, as columns of four: column c is that of lane c % n * 4 + c / n, where
// n is a quarter of the lanes.
#if defined(__AVX512BW__)
DEVICE void transpose(const float (*rows)[STRIP], int first, float* columns) {
    const __m512 a = _mm512_loadu_ps(rows[0] + first), b = _mm512_loadu_ps(rows[1] + first);
    const __m512 c = _mm512_loadu_ps(rows[2] + first), d = _mm512_loadu_ps(rows[3] + first);
    // with a mask of all: without one, GCC 12 warns of its own header
    const __m512d ab_0 = __m512d(_mm512_maskz_unpacklo_ps(0xffff, a, b));
    const __m512d ab_1 = __m512d(_mm512_maskz_unpackhi_ps(0xffff, a, b));
    const __m512d cd_0 = __m512d(_mm512_maskz_unpacklo_ps(0xffff, c, d));
    const __m512d cd_1 = __m512d(_mm512_maskz_unpackhi_ps(0xffff, c, d));
    _mm512_store_pd(columns, _mm512_maskz_unpacklo_pd(0xff, ab_0, cd_0));
    _mm512_store_pd(columns + 16, _mm512_maskz_unpackhi_pd(0xff, ab_0, cd_0));
    _mm512_store_pd(columns + 32, _mm512_maskz_unpacklo_pd(0xff, ab_1, cd_1));
    _mm512_store_pd(columns + 48, _mm512_maskz_unpackhi_pd(0xff, ab_1, cd_1));
}
#else
DEVICE void transpose(const float (*rows)[STRIP], int first, float* columns) {
    const __m256 a = _mm256_loadu_ps(rows[0] + first), b = _mm256_loadu_ps(rows[1] + first);
    const __m256 c = _mm256_loadu_ps(rows[2] + first), d = _mm256_loadu_ps(rows[3] + first);
    const __m256d ab_0 = __m256d(_mm256_unpacklo_ps(a, b)), ab_1 = __m256d(_mm256_unpackhi_ps(a, b));
    const __m256d cd_0 = __m256d(_mm256_unpacklo_ps(c, d)), cd_1 = __m256d(_mm256_unpackhi_ps(c, d));
    double* to = reinterpret_cast<double*>(columns);
    _mm256_store_pd(to, _mm256_unpacklo_pd(ab_0, cd_0));
    _mm256_store_pd(to + 4, _mm256_unpackhi_pd(ab_0, cd_0));
    _mm256_store_pd(to + 8, _mm256_unpacklo_pd(ab_1, cd_1));
    _mm256_store_pd(to + 12, _mm256_unpackhi_pd(ab_1, cd_1));
}
#endif
// What descriptor.cu's Gathered::add does: a sample's eight parts are a vector, and lie together.
DEVICE bool add_vectors(int count, const int* cells, const float (*corners)[STRIP], const float* before,
                        const float* after, int* sums) {
    constexpr int width = VECTOR_BYTES / 4;
    for (int first = 0; first < count; first += width) {
        alignas(64) float columns[4 * width];
        transpose(corners, first, columns);
        UNROLL
        for (int column = 0; column < width; ++column) {
            const int lane = column % (width / 4) * 4 + column / (width / 4), i = first + lane;
            if (cells[i] < 0) continue;
            const __m256 four = _mm256_broadcast_ps(reinterpret_cast<const __m128*>(columns + 4 * column));
            const __m256 two = _mm256_blend_ps(_mm256_set1_ps(before[i]), _mm256_set1_ps(after[i]), 0xf0);
            __m256i* sum = reinterpret_cast<__m256i*>(sums + 8 * cells[i]);
            *sum = _mm256_add_epi32(*sum, _mm256_cvtps_epi32(_mm256_mul_ps(four, two)));
        }
    }
    return true;
}
#endif

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

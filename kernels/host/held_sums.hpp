// What held_sums.cuh defines, for one thread with vectors: nothing is held back, and a cell's eight sums are a vector.
#pragma once

struct HeldSums {
    DEVICE_MEMBER explicit HeldSums(fixed* sums) : sums(sums) {}
    DEVICE_MEMBER void add(int to, fixed value) { sums[to] += value; }
    DEVICE_MEMBER void flush() {}

 private:
    fixed* sums;
};

// A cell, negative where a sample adds nothing; and what makes the eight numbers that a sample adds.
template <typename Real>
struct SamplesOf {
    PerSample<int> cell;
    PerSample<Real> corners[4], before, after;
};

using CellSamples = SamplesOf<real>;

// Adds samples to the sums of their cells. What they give is held back as long as they are of the same cell.
template <typename Real, typename Sum>
DEVICE void add_to_cells(int count, const SamplesOf<Real>& samples, Sum* sums) {
    Sum held[8] = {};
    int cell = -1;
    const auto flush = [&] {
        for (int part = 0; part < 8 && cell >= 0; ++part) sums[8 * cell + part] += held[part];
    };
    for (int i = 0; i < count; ++i) {
        if (samples.cell[i] < 0) continue;
        if (samples.cell[i] != cell) {
            flush();
            cell = samples.cell[i];
            for (auto& part : held) part = 0;
        }
        UNROLL
        for (int part = 0; part < 8; ++part)
            held[part] += to_fixed(samples.corners[part & 3][i] * (part < 4 ? samples.before[i] : samples.after[i]));
    }
    flush();
}

#if defined(__AVX2__)
// A vector of each of four rows, from `first` on, as columns of four: column c is that of lane c % n * 4 + c / n, where
// n is a quarter of the lanes.
#if defined(__AVX512BW__)
DEVICE void transpose(const PerSample<float>* rows, int first, float* columns) {
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
DEVICE void transpose(const PerSample<float>* rows, int first, float* columns) {
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

DEVICE void add_to_cells(int count, const SamplesOf<float>& samples, int* sums) {
    constexpr int width = VECTOR_BYTES / 4;
    for (int first = 0; first < count; first += width) {
        alignas(64) float columns[4 * width];
        transpose(samples.corners, first, columns);
        UNROLL
        for (int column = 0; column < width; ++column) {
            const int lane = column % (width / 4) * 4 + column / (width / 4), i = first + lane;
            if (samples.cell[i] < 0) continue;
            const __m256 four = _mm256_broadcast_ps(reinterpret_cast<const __m128*>(columns + 4 * column));
            const __m256 before = _mm256_set1_ps(samples.before[i]), after = _mm256_set1_ps(samples.after[i]);
            const __m256 eight = _mm256_mul_ps(four, _mm256_blend_ps(before, after, 0xf0));
            __m256i* sum = reinterpret_cast<__m256i*>(sums + 8 * samples.cell[i]);
            *sum = _mm256_add_epi32(*sum, _mm256_cvtps_epi32(eight));
        }
    }
}
#elif defined(__SSE2__)
DEVICE void add_to_cells(int count, const SamplesOf<float>& samples, int* sums) {
    for (int first = 0; first < count; first += 4) {
        __m128 of_samples[4];  // first those of a corner, then those of a sample
        for (int corner = 0; corner < 4; ++corner) of_samples[corner] = _mm_loadu_ps(samples.corners[corner] + first);
        _MM_TRANSPOSE4_PS(of_samples[0], of_samples[1], of_samples[2], of_samples[3]);
        for (int i = first; i < first + 4; ++i) {
            if (samples.cell[i] < 0) continue;
            const __m128 before = _mm_mul_ps(of_samples[i - first], _mm_set1_ps(samples.before[i]));
            const __m128 after = _mm_mul_ps(of_samples[i - first], _mm_set1_ps(samples.after[i]));
            __m128i* sum = reinterpret_cast<__m128i*>(sums + 8 * samples.cell[i]);
            sum[0] = _mm_add_epi32(sum[0], _mm_cvtps_epi32(before));
            sum[1] = _mm_add_epi32(sum[1], _mm_cvtps_epi32(after));
        }
    }
}
#endif

// The sums of cells: at first eight each, side by side; after `fold` four.
struct CellSums {
    DEVICE_MEMBER CellSums(fixed* sums, int n_cells) : sums(sums), n_cells(n_cells) {}
    DEVICE_MEMBER void clear() {
        for (int sum = 0; sum < 8 * n_cells; ++sum) sums[sum] = 0;
    }
    DEVICE_MEMBER void add(int count, const CellSamples& samples) { add_to_cells(count, samples, sums); }
    DEVICE_MEMBER void flush() {}

    DEVICE_MEMBER void fold() {
        for (int cell = 1; cell < n_cells; ++cell) {
            VECTORIZE
            for (int corner = 0; corner < 4; ++corner)
                sums[4 * cell + corner] = sums[8 * cell + corner] + sums[8 * cell - 4 + corner];
        }
    }

    DEVICE_MEMBER fixed& corner(int of_cell, int corner) { return sums[4 * of_cell + corner]; }

 private:
    fixed* sums;
    int n_cells;
};

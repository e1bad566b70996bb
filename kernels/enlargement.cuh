// The enlarged image, row by row; for scale_space.cu.
#pragma once
#include "arithmetic.cuh"

// The way from a sample to a neighbour along one axis: the fraction of it, and whether the neighbour's index is higher
// (as it is for the mirrored one before the first sample).
template <typename T>
struct Way {
    T part;
    bool ahead;
};

// The value between four samples: `near`, its neighbours `beside` it and `below` it, and the one `across`.
DEVICE float between(float near, float beside, float below, float across, Way<float> rows, Way<float> cols) {
    const float here = fused(rows.part, below - near, near), there = fused(rows.part, across - beside, beside);
    return fused(cols.part, there - here, here);
}

// In double, the sum that scipy.ndimage.zoom makes, in its order: rows, then columns, by ascending index.
DEVICE double between(double near, double beside, double below, double across, Way<double> rows, Way<double> cols) {
    const double here[] = {near * (1 - rows.part) * (1 - cols.part), beside * (1 - rows.part) * cols.part};
    const double there[] = {below * rows.part * (1 - cols.part), across * rows.part * cols.part};
    const double first = rows.ahead ? here[0] + here[1] : there[0] + there[1];
    const double near_one = rows.ahead ? there[0] : here[0], far_one = rows.ahead ? there[1] : here[1];
    return cols.ahead ? first + near_one + far_one : first + far_one + near_one;
}

// One row of an image, enlarged `times` (1, 2 or 4) times: the columns that come of its columns [first, end). Where a
// sample's centre, see `upsample`, is 1/2, the image is mirrored beyond the edge; where it is 0, the edge is repeated.
template <int times, bool mirrors>
DEVICE void enlarge_row_at(const real* __restrict__ image, int rows, int cols, int enlarged_row, int first, int end,
                           real* __restrict__ out) {
    constexpr real centre = mirrors ? real(0.5) : real(0);
    const int row = enlarged_row / times, row_phase = enlarged_row % times;
    // the enlarged row lies between this row and the one before or after it
    const real row_shift = (real(row_phase) + centre) / times - centre;
    const int towards = row + (row_shift < 0 ? -1 : 1);
    const Way<real> rows_way = {magnitude_of(row_shift), towards < 0 || towards > row};
    const int inside = towards < 0 ? 1 : towards >= rows ? rows - 1 - mirrors : towards;
    const int mirrored = rows == 1 || times == 1 ? row : inside;
    const real* here = image + (long long)row * cols;
    const real* there = image + (long long)mirrored * cols;
    auto enlarge = [&](int col, int left, int right) {
        UNROLL
        for (int phase = 0; phase < times; ++phase) {
            const real shift = (real(phase) + centre) / times - centre;
            const int other = shift < 0 ? left : right;
            const Way<real> cols_way = {magnitude_of(shift), shift > 0 || left > col};
            out[times * col + phase] = between(here[col], here[other], there[col], there[other], rows_way, cols_way);
        }
    };
    const int last = smaller(end, cols - 1);
    VECTORIZE
    for (int col = larger(first, 1) + threadIdx.x * ENLARGED_SPAN; col < last; col += blockDim.x * ENLARGED_SPAN) {
        if (col + ENLARGED_SPAN <= last) {  // what neighbours have in common is computed once
            UNROLL
            for (int i = 0; i < ENLARGED_SPAN; ++i) enlarge(col + i, col + i - 1, col + i + 1);
        } else {
            for (int i = col; i < last; ++i) enlarge(i, i - 1, i + 1);
        }
    }
    if (threadIdx.x != 0) return;
    const int second = smaller(1, cols - 1), beyond_last = larger(cols - 1 - mirrors, 0);
    if (first == 0) enlarge(0, second, second);
    if (cols > 1 && end == cols) enlarge(cols - 1, cols - 2, beyond_last);
}

// The same for a centre that is known only when running: 1/2 or 0.
template <int times>
DEVICE void enlarge_row(const real* __restrict__ image, int rows, int cols, int enlarged_row, real centre, int first,
                        int end, real* __restrict__ out) {
    if (centre > 0) enlarge_row_at<times, true>(image, rows, cols, enlarged_row, first, end, out);
    if (centre == 0) enlarge_row_at<times, false>(image, rows, cols, enlarged_row, first, end, out);
}

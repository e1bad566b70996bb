// The enlarged image, row by row; for scale_space.cu.
#pragma once
#include "arithmetic.cuh"

// One row of an image, enlarged `times` (1, 2 or 4) times: the columns that come of its columns [first, end).
template <int times>
DEVICE void enlarge_row(const real* __restrict__ image, int rows, int cols, int enlarged_row, int first, int end,
                        real* __restrict__ out) {
    const int row = enlarged_row / times, row_phase = enlarged_row % times;
    // the enlarged row lies `row_part` of the way from this row to the one before or after it
    const real row_shift = (real(row_phase) + real(0.5)) / times - real(0.5);
    const real row_part = magnitude_of(row_shift);
    const int towards = row + (row_shift < 0 ? -1 : 1);
    const int inside = towards < 0 ? 1 : towards >= rows ? rows - 2 : towards;
    const int mirrored = rows == 1 || times == 1 ? row : inside;
    const real* here = image + (long long)row * cols;
    const real* there = image + (long long)mirrored * cols;
    auto enlarge = [&](int col, int left, int right) {
        const real centre = fused(row_part, there[col] - here[col], here[col]);
        const real before = fused(row_part, there[left] - here[left], here[left]);
        const real after = fused(row_part, there[right] - here[right], here[right]);
        UNROLL
        for (int phase = 0; phase < times; ++phase) {
            const real shift = (real(phase) + real(0.5)) / times - real(0.5);
            const real other = shift < 0 ? before : after;
            out[times * col + phase] = fused(magnitude_of(shift), other - centre, centre);
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
    const int second = smaller(1, cols - 1), last_but_one = larger(cols - 2, 0);
    if (first == 0) enlarge(0, second, second);
    if (cols > 1 && end == cols) enlarge(cols - 1, last_but_one, last_but_one);
}

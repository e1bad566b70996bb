// The blur of a tile: columns into shared memory, then rows from there; for scale_space.cu.
#pragma once
#include "arithmetic.cuh"

// The widest radius whose taps are written out one by one: beyond it a GPU's registers run out.
#define MAX_UNROLLED 32

// The columns of n_rows rows of a tile from `first` on, whose neighbours `radius` away exist, blurred into shared
// memory.
template <int radius, int n_rows>
DEVICE void blur_columns(const real* __restrict__ first, int pitch, const real* __restrict__ taps, int left, int right,
                         real* __restrict__ blurred, int width) {
    VECTORIZE
    for (int col = left + threadIdx.x; col < right; col += blockDim.x) {
        const real* here = first + col;
        real sum[n_rows], twice[n_rows];
        UNROLL
        for (int row = 0; row < n_rows; ++row) {
            sum[row] = 0;
            twice[row] = 2 * here[row * (long long)pitch];
        }
        UNROLL
        for (int k = radius; k >= 1; --k) {
            UNROLL
            for (int row = 0; row < n_rows; ++row) {
                const real around = here[(row - k) * (long long)pitch] + here[(row + k) * (long long)pitch];
                sum[row] = fused(taps[k], around - twice[row], sum[row]);
            }
        }
        UNROLL
        for (int row = 0; row < n_rows; ++row) blurred[row * width + col] = here[row * (long long)pitch] + sum[row];
    }
}

// The same for one row anywhere, edges reflected, and for a radius known only when running.
DEVICE void blur_columns_reflected(const real* __restrict__ in, int row, int rows, int pitch,
                                   const real* __restrict__ taps, int radius, int left, int right,
                                   real* __restrict__ blurred) {
    const real* here = in + (long long)row * pitch;
    VECTORIZE
    for (int col = left + threadIdx.x; col < right; col += blockDim.x) blurred[col] = 0;
    for (int k = radius; k >= 1; --k) {
        const real* above = in + (long long)reflect(row - k, rows) * pitch;
        const real* below = in + (long long)reflect(row + k, rows) * pitch;
        VECTORIZE
        for (int col = left + threadIdx.x; col < right; col += blockDim.x)
            blurred[col] = fused(taps[k], above[col] + below[col] - 2 * here[col], blurred[col]);
    }
    VECTORIZE
    for (int col = left + threadIdx.x; col < right; col += blockDim.x) blurred[col] = here[col] + blurred[col];
}

// One row of a tile, blurred along itself from shared memory.
template <int radius_known>
DEVICE void blur_row(const real* __restrict__ blurred, const real* __restrict__ taps, int radius, int left, int right,
                     real* __restrict__ out) {
    if (radius_known > 0) {
        VECTORIZE
        for (int col = left + threadIdx.x; col < right; col += blockDim.x) {
            const real twice = 2 * blurred[col];
            real sum = 0;
            UNROLL
            for (int k = radius_known; k >= 1; --k)
                sum = fused(taps[k], blurred[col - k] + blurred[col + k] - twice, sum);
            out[col] = blurred[col] + sum;
        }
    } else {
        VECTORIZE
        for (int col = left + threadIdx.x; col < right; col += blockDim.x) out[col] = 0;
        for (int k = radius; k >= 1; --k) {
            VECTORIZE
            for (int col = left + threadIdx.x; col < right; col += blockDim.x)
                out[col] = fused(taps[k], blurred[col - k] + blurred[col + k] - 2 * blurred[col], out[col]);
        }
        VECTORIZE
        for (int col = left + threadIdx.x; col < right; col += blockDim.x) out[col] = blurred[col] + out[col];
    }
}

// What a blur leaves to do when the columns of a tile are blurred into shared memory: edges, then its rows.
struct BlurTile {
    int row_0, row_1, col_0, col_1;  // of the level, the ends not included

    template <int radius_known>
    DEVICE_MEMBER void blur_rows(real* __restrict__ columns, int width, const real* __restrict__ taps, int radius,
                                 int cols, int pitch, real* __restrict__ out) const {
        __syncthreads();
        if (col_0 < radius || col_1 + radius > cols) {
            for (int row = row_0 + threadIdx.y; row < row_1; row += blockDim.y) {
                real* blurred = columns + (row - row_0) * width;
                for (int col = col_0 - radius + threadIdx.x; col < 0; col += blockDim.x)
                    blurred[col] = blurred[reflect(col, cols)];
                for (int col = cols + threadIdx.x; col < col_1 + radius; col += blockDim.x)
                    blurred[col] = blurred[reflect(col, cols)];
            }
            __syncthreads();
        }
        for (int row = row_0 + threadIdx.y; row < row_1; row += blockDim.y)
            blur_row<radius_known>(columns + (row - row_0) * width, taps, radius, col_0, col_1,
                                   out + (long long)row * pitch);
        __syncthreads();
    }
};

DEVICE BlurTile tile_of(int number, int rows, int cols) {
    const int across = ceil_div(cols, BLUR_TILE_COLS);
    const int row = number / across * BLUR_TILE_ROWS, col = number % across * BLUR_TILE_COLS;
    return {row, smaller(row + BLUR_TILE_ROWS, rows), col, smaller(col + BLUR_TILE_COLS, cols)};
}

DEVICE int n_tiles_of(int rows, int cols) { return ceil_div(rows, BLUR_TILE_ROWS) * ceil_div(cols, BLUR_TILE_COLS); }

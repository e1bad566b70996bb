// The scale space: the image, enlarged, and its Gaussian levels (Otero & Delbracio 2014, Alg. 1 and 2).
//
// An octave is n_scales + 3 levels of rows x cols samples. Level 0 of the first octave is the enlarged image blurred to
// sigma_min; each further level is the one before it, blurred by the increment that the scale-space sigmas leave
// (eq. 7); level 0 of the next octave is every second sample of level n_scales.
#include "common.cuh"

// Enlarges an image FACTOR (1, 2 or 4) times, linearly, pixel areas aligned:
//
//     out(i, j) = image((i + 1/2) / FACTOR - 1/2, (j + 1/2) / FACTOR - 1/2),   mirrored at the edge pixels' centres,
//
// as skimage.transform.rescale(order=1) does. Positions are later taken as index / FACTOR, which is where
// scikit-image's bias of (FACTOR - 1) / (2 FACTOR) input pixels comes from. One block per row of the image.
//
//     image  (rows, cols)                    intensities
//     out    (FACTOR rows, FACTOR cols)      rows out_pitch samples apart
KERNEL_OF(FACTOR) upsample(const real* __restrict__ image, const int rows, const int cols, real* __restrict__ out,
                         const int out_pitch) {
    for (int row = blockIdx.x; row < rows; row += gridDim.x) {
        for (int row_phase = 0; row_phase < FACTOR; ++row_phase) {
            // the enlarged row lies `row_part` of the way from this row to the one before or after it
            const real row_shift = (real(row_phase) + real(0.5)) / FACTOR - real(0.5);
            const real row_part = magnitude_of(row_shift);
            const int towards = row + (row_shift < 0 ? -1 : 1);
            const int inside = towards < 0 ? 1 : towards >= rows ? rows - 2 : towards;
            const int mirrored = rows == 1 || FACTOR == 1 ? row : inside;
            const real* here = image + (long long)row * cols;
            const real* there = image + (long long)mirrored * cols;
            real* out_row = out + ((long long)row * FACTOR + row_phase) * out_pitch;
            auto enlarge = [&](int col, int left, int right) {
                const real centre = fused(row_part, there[col] - here[col], here[col]);
                const real before = fused(row_part, there[left] - here[left], here[left]);
                const real after = fused(row_part, there[right] - here[right], here[right]);
                UNROLL
                for (int phase = 0; phase < FACTOR; ++phase) {
                    const real shift = (real(phase) + real(0.5)) / FACTOR - real(0.5);
                    const real other = shift < 0 ? before : after;
                    out_row[FACTOR * col + phase] = fused(magnitude_of(shift), other - centre, centre);
                }
            };
            VECTORIZE
            for (int col = 1 + threadIdx.x; col < cols - 1; col += blockDim.x) enlarge(col, col - 1, col + 1);
            if (threadIdx.x == 0) {
                const int second = smaller(1, cols - 1), last_but_one = larger(cols - 2, 0);
                enlarge(0, second, second);
                if (cols > 1) enlarge(cols - 1, last_but_one, last_but_one);
            }
        }
    }
}

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

// Blurs a level with a symmetric kernel, columns then rows, edges reflected (d c b a | a b c d | d c b a):
//
//     out(r, c) = sum_j w_|j| sum_i w_|i| in(r + i, c + j),   i, j = -radius ... radius,
//
// each sum taken as in(0) + sum_k w_k ((in(-k) + in(+k)) - 2 in(0)), from the smallest weight to the largest by fma:
// one order of operations on every device. What is rounded are small differences, and the weights add up to 1 by
// construction, so a float's error is a third of the plain sum's. RADIUS is the radius at compile time; 0, on a host,
// says that it is known only when running. A block blurs a tile: its columns, with a halo, into shared memory, then its
// rows from there.
//
//     in, out  (rows, cols)   rows pitch samples apart
//     taps     (radius + 1,)  w_0 ... w_radius; w_0 is implied
KERNEL_OF(RADIUS) blur(const real* __restrict__ in, const int rows, const int cols, const int pitch,
                     const real* __restrict__ taps, const int radius, real* __restrict__ out) {
    constexpr int widest = RADIUS > 0 ? RADIUS : MAX_RADIUS;
    constexpr int halo = (widest + LANES - 1) / LANES * LANES, width = BLUR_TILE_COLS + 2 * halo;
    constexpr int unrolled = RADIUS <= MAX_UNROLLED ? RADIUS : 0;
    const int reach = RADIUS > 0 ? RADIUS : radius;
    __shared__ real columns[BLUR_TILE_ROWS * width];
    const int tiles_across = ceil_div(cols, BLUR_TILE_COLS);
    const int n_tiles = ceil_div(rows, BLUR_TILE_ROWS) * tiles_across;
    for (int tile = blockIdx.x; tile < n_tiles; tile += gridDim.x) {
        const int row_0 = tile / tiles_across * BLUR_TILE_ROWS, row_1 = smaller(row_0 + BLUR_TILE_ROWS, rows);
        const int col_0 = tile % tiles_across * BLUR_TILE_COLS, col_1 = smaller(col_0 + BLUR_TILE_COLS, cols);
        const int left = larger(col_0 - ceil_div(reach, LANES) * LANES, 0), right = smaller(col_1 + reach, cols);
        real* tile_columns = columns + halo - col_0;

        for (int group = row_0 + threadIdx.y * BLUR_ROWS; group < row_1; group += blockDim.y * BLUR_ROWS) {
            const int group_end = smaller(group + BLUR_ROWS, row_1);
            real* blurred = tile_columns + (group - row_0) * width;
            if (unrolled > 0 && group >= reach && group + BLUR_ROWS + reach <= rows && group + BLUR_ROWS <= row_1) {
                blur_columns<unrolled, BLUR_ROWS>(in + (long long)group * pitch, pitch, taps, left, right, blurred,
                                                  width);
            } else {
                for (int row = group; row < group_end; ++row)
                    blur_columns_reflected(in, row, rows, pitch, taps, reach, left, right,
                                           blurred + (row - group) * width);
            }
        }
        __syncthreads();

        if (col_0 < reach || col_1 + reach > cols) {
            for (int row = row_0 + threadIdx.y; row < row_1; row += blockDim.y) {
                real* blurred = tile_columns + (row - row_0) * width;
                for (int col = col_0 - reach + threadIdx.x; col < 0; col += blockDim.x)
                    blurred[col] = blurred[reflect(col, cols)];
                for (int col = cols + threadIdx.x; col < col_1 + reach; col += blockDim.x)
                    blurred[col] = blurred[reflect(col, cols)];
            }
            __syncthreads();
        }

        for (int row = row_0 + threadIdx.y; row < row_1; row += blockDim.y)
            blur_row<unrolled>(tile_columns + (row - row_0) * width, taps, reach, col_0, col_1,
                               out + (long long)row * pitch);
        __syncthreads();
    }
}

// Takes every second sample of a level: level 0 of the next octave. One block per row of it.
//
//     in   (rows, cols)                        rows pitch samples apart
//     out  ((rows + 1) / 2, (cols + 1) / 2)    rows out_pitch samples apart
KERNEL decimate(const real* __restrict__ in, const int rows, const int cols, const int pitch, real* __restrict__ out,
                const int out_pitch) {
    const int out_rows = ceil_div(rows, 2), out_cols = ceil_div(cols, 2);
    for (int row = blockIdx.x; row < out_rows; row += gridDim.x) {
        const real* from = in + 2LL * row * pitch;
        real* to = out + (long long)row * out_pitch;
        VECTORIZE
        for (int col = threadIdx.x; col < out_cols; col += blockDim.x) to[col] = from[2 * col];
    }
}

// The scale space: the image, enlarged, and its Gaussian levels (Otero & Delbracio 2014, Alg. 1 and 2).
//
// An octave is n_scales + 3 levels of rows x cols samples. Level 0 of the first octave is the enlarged image blurred to
// sigma_min; each further level is the one before it, blurred by the increment that the scale-space sigmas leave
// (eq. 7); level 0 of the next octave is every second sample of level n_scales.
#include "blur.cuh"
#include "enlargement.cuh"

// Enlarges an image FACTOR (1, 2 or 4) times, linearly, pixel areas aligned:
//
//     out(i, j) = image((i + 1/2) / FACTOR - 1/2, (j + 1/2) / FACTOR - 1/2),   mirrored at the edge pixels' centres,
//
// as skimage.transform.rescale(order=1) does. Positions are later taken as index / FACTOR, which is where
// scikit-image's bias of (FACTOR - 1) / (2 FACTOR) input pixels comes from. One block per enlarged row.
//
//     image  (rows, cols)                    intensities; images stride samples apart
//     out    (FACTOR rows, FACTOR cols)      rows pitch samples apart, images stride
KERNEL_OF(FACTOR) upsample(const real* __restrict__ image, const int rows, const int cols, const long long stride,
                         real* __restrict__ out, const int pitch) {
    image += blockIdx.z * stride;
    out += blockIdx.z * stride;
    for (int row = blockIdx.x; row < FACTOR * rows; row += gridDim.x)
        enlarge_row<FACTOR>(image, rows, cols, row, 0, cols, out + (long long)row * pitch);
}

// The first level: an image enlarged as `upsample` does and blurred as `blur` does, in one pass. A block enlarges its
// tile, with a halo, into shared memory and blurs it there. FUSED is at most MAX_FUSED_RADIUS; 0, on a host,
// says that it is known only when running.
//
//     image  (rows, cols)                    intensities; images stride samples apart
//     factor                                 1, 2 or 4
//     taps   (radius + 1,)                   as in `blur`
//     out    (factor rows, factor cols)      rows pitch samples apart, images stride
KERNEL_OF(FUSED) first_level(const real* __restrict__ image, const int rows, const int cols, const long long stride,
                            const int factor, const real* __restrict__ taps, const int radius, real* __restrict__ out,
                            const int pitch) {
    constexpr int widest = FUSED > 0 ? FUSED : MAX_FUSED_RADIUS;
    constexpr int step = LANES > 4 ? LANES : 4;  // a vector, and all that comes of an image's column
    constexpr int halo = (widest + step - 1) / step * step, width = BLUR_TILE_COLS + 2 * halo;
    const int reach = FUSED > 0 ? FUSED : radius;
    const int out_rows = factor * rows, out_cols = factor * cols;
    __shared__ real enlarged[(BLUR_TILE_ROWS + 2 * widest) * width];
    __shared__ real columns[BLUR_TILE_ROWS * width];
    image += blockIdx.z * stride;
    out += blockIdx.z * stride;
    for (int number = blockIdx.x; number < n_tiles_of(out_rows, out_cols); number += gridDim.x) {
        const BlurTile tile = tile_of(number, out_rows, out_cols);
        const int left = larger(tile.col_0 - halo, 0), right = smaller(tile.col_1 + reach, out_cols);
        real* tile_enlarged = enlarged + halo - tile.col_0;
        real* tile_columns = columns + halo - tile.col_0;
        const int first = left / factor, end = ceil_div(right, factor);
        for (int i = threadIdx.y; i < BLUR_TILE_ROWS + 2 * reach; i += blockDim.y) {
            const int row = reflect(tile.row_0 - reach + i, out_rows);
            real* to = tile_enlarged + i * width;
            if (factor == 1) enlarge_row<1>(image, rows, cols, row, first, end, to);
            if (factor == 2) enlarge_row<2>(image, rows, cols, row, first, end, to);
            if (factor == 4) enlarge_row<4>(image, rows, cols, row, first, end, to);
        }
        __syncthreads();
        for (int i = threadIdx.y * BLUR_ROWS; i < BLUR_TILE_ROWS; i += blockDim.y * BLUR_ROWS) {
            if (FUSED > 0) {
                blur_columns<FUSED, BLUR_ROWS>(tile_enlarged + (i + reach) * width, width, taps, left, right,
                                               tile_columns + i * width, width);
            } else {
                for (int row = i; row < i + BLUR_ROWS; ++row)
                    blur_columns_reflected(tile_enlarged, row + reach, BLUR_TILE_ROWS + 2 * reach, width, taps, reach,
                                           left, right, tile_columns + row * width);
            }
        }
        tile.blur_rows<FUSED>(tile_columns, width, taps, reach, out_cols, pitch, out);
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
// rows from there. Where the level leads to the next octave, every second sample of it goes there too.
//
//     in, out  (rows, cols)   rows pitch samples apart, images stride
//     taps     (radius + 1,)  w_0 ... w_radius; w_0 is implied
//     next     ((rows + 1) / 2, (cols + 1) / 2)   rows next_pitch samples apart, images stride; next_pitch 0: not
//     wanted
KERNEL_OF(RADIUS) blur(const real* __restrict__ in, const int rows, const int cols, const int pitch,
                     const long long stride, const real* __restrict__ taps, const int radius, real* __restrict__ out,
                     real* __restrict__ next, const int next_pitch) {
    constexpr int widest = RADIUS > 0 ? RADIUS : MAX_RADIUS;
    constexpr int halo = (widest + LANES - 1) / LANES * LANES, width = BLUR_TILE_COLS + 2 * halo;
    constexpr int unrolled = RADIUS <= MAX_UNROLLED ? RADIUS : 0;
    const int reach = RADIUS > 0 ? RADIUS : radius;
    __shared__ real columns[BLUR_TILE_ROWS * width];
    in += blockIdx.z * stride;
    out += blockIdx.z * stride;
    next += blockIdx.z * stride;
    for (int number = blockIdx.x; number < n_tiles_of(rows, cols); number += gridDim.x) {
        const BlurTile tile = tile_of(number, rows, cols);
        const int left = larger(tile.col_0 - ceil_div(reach, LANES) * LANES, 0);
        const int right = smaller(tile.col_1 + reach, cols);
        real* tile_columns = columns + halo - tile.col_0;
        for (int group = tile.row_0 + threadIdx.y * BLUR_ROWS; group < tile.row_1; group += blockDim.y * BLUR_ROWS) {
            real* blurred = tile_columns + (group - tile.row_0) * width;
            const int end = group + BLUR_ROWS;
            if (unrolled > 0 && group >= reach && end + reach <= rows && end <= tile.row_1) {
                blur_columns<unrolled, BLUR_ROWS>(in + (long long)group * pitch, pitch, taps, left, right, blurred,
                                                  width);
            } else {
                for (int row = group; row < smaller(end, tile.row_1); ++row)
                    blur_columns_reflected(in, row, rows, pitch, taps, reach, left, right,
                                           blurred + (row - group) * width);
            }
        }
        tile.blur_rows<unrolled>(tile_columns, width, taps, reach, cols, pitch, out);
        if (next_pitch == 0) continue;
        for (int row = tile.row_0 / 2 + threadIdx.y; row < ceil_div(tile.row_1, 2); row += blockDim.y) {
            const real* from = out + 2LL * row * pitch;
            real* to = next + (long long)row * next_pitch;
            const int end = ceil_div(tile.col_1, 2);
            VECTORIZE
            for (int col = tile.col_0 / 2 + threadIdx.x; col < end; col += blockDim.x) to[col] = from[2 * col];
        }
    }
}

// Takes every second sample of a level: level 0 of the next octave. One block per row of it.
//
//     in   (rows, cols)                        rows pitch samples apart, images stride
//     out  ((rows + 1) / 2, (cols + 1) / 2)    rows out_pitch samples apart, images stride
KERNEL decimate(const real* __restrict__ in, const int rows, const int cols, const int pitch, const long long stride,
                real* __restrict__ out, const int out_pitch) {
    in += blockIdx.z * stride;
    out += blockIdx.z * stride;
    const int out_rows = ceil_div(rows, 2), out_cols = ceil_div(cols, 2);
    for (int row = blockIdx.x; row < out_rows; row += gridDim.x) {
        const real* from = in + 2LL * row * pitch;
        real* to = out + (long long)row * out_pitch;
        VECTORIZE
        for (int col = threadIdx.x; col < out_cols; col += blockDim.x) to[col] = from[2 * col];
    }
}

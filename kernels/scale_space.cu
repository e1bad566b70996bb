// The scale space: the image, enlarged, and its Gaussian levels (Otero & Delbracio 2014, Alg. 1 and 2).
//
// An octave is n_scales + 3 levels of rows x cols samples. Level 0 of the first octave is the enlarged image blurred to
// sigma_min; each further level is the one before it, blurred by the increment that the scale-space sigmas leave
// (eq. 7); level 0 of the next octave is every second sample of level n_scales.
#include "enlargement.cuh"
#include "levels.cuh"

// Enlarges an image FACTOR (1, 2 or 4) times, linearly:
//
//     out(i, j) = image((i + centre) / FACTOR - centre, (j + centre) / FACTOR - centre).
//
// With centre = 1/2 the areas of both images are aligned, and the image is mirrored at the edge pixels' centres, as
// skimage.transform.rescale(order=1) does. Positions are later taken as index / FACTOR, which is where scikit-image's
// bias of (FACTOR - 1) / (2 FACTOR) input pixels comes from. With centre = 0 every FACTOR-th sample is a pixel, and the
// last pixel is repeated, as in VLFeat. One block per enlarged row.
//
//     image  (rows, cols)                    intensities; images stride samples apart
//     centre                                 1/2 or 0
//     out    (FACTOR rows, FACTOR cols)      rows pitch samples apart, images stride
KERNEL_OF(FACTOR) upsample(const real* __restrict__ image, const int rows, const int cols, const long long stride,
                           const real centre, real* __restrict__ out, const int pitch) {
    image += blockIdx.z * stride;
    out += blockIdx.z * stride;
    for (int row = blockIdx.x; row < FACTOR * rows; row += gridDim.x)
        enlarge_row<FACTOR>(image, rows, cols, row, centre, 0, cols, out + (long long)row * pitch);
}

// The first level: an image enlarged as `upsample` does and blurred as `blur` does, in one pass. A block enlarges its
// tile, with a halo, into shared memory and blurs it there. FUSED is at most MAX_FUSED_RADIUS; 0, on a host,
// says that it is known only when running.
//
//     image  (rows, cols)                    intensities; images stride samples apart
//     factor                                 1, 2 or 4
//     centre                                 as in `upsample`
//     taps   (radius + 1,)                   as in `blur`
//     out    (factor rows, factor cols)      rows pitch samples apart, images stride
KERNEL_OF(FUSED) first_level(const real* __restrict__ image, const int rows, const int cols, const long long stride,
                             const int factor, const real centre, const real* __restrict__ taps, const int radius,
                             real* __restrict__ out, const int pitch) {
    constexpr int widest = FUSED > 0 ? FUSED : MAX_FUSED_RADIUS;
    using Shape = BlurShape<widest>;
    const int reach = FUSED > 0 ? FUSED : radius;
    const int out_rows = factor * rows, out_cols = factor * cols;
    alignas(16) __shared__ real enlarged[Shape::copy_size];
    alignas(16) __shared__ real columns[Shape::columns_size];
    image += blockIdx.z * stride;
    out += blockIdx.z * stride;
    const int n_tiles = n_tiles_of(out_rows, out_cols);
    for (int number = blockIdx.x; number < n_tiles; number += gridDim.x) {
        const BlurTile tile = tile_of(number, out_rows, out_cols);
        const int left = larger(tile.col_0 - Shape::halo, 0), right = smaller(tile.col_1 + reach, out_cols);
        const int first = left / factor, end = ceil_div(right, factor);
        real* tile_enlarged = enlarged + Shape::halo - tile.col_0;
        for (int i = threadIdx.y; i < BLUR_TILE_ROWS + 2 * reach; i += blockDim.y) {
            const int row = reflect(tile.row_0 - reach + i, out_rows);
            real* to = tile_enlarged + i * Shape::width;
            if (factor == 1) enlarge_row<1>(image, rows, cols, row, centre, first, end, to);
            if (factor == 2) enlarge_row<2>(image, rows, cols, row, centre, first, end, to);
            if (factor == 4) enlarge_row<4>(image, rows, cols, row, centre, first, end, to);
        }
        __syncthreads();
        blur_tile_columns<FUSED, Shape::halo, true>(tile, tile_enlarged, reach, BLUR_TILE_ROWS + 2 * reach, out_cols,
                                                    Shape::width, taps, reach, columns);
        __syncthreads();
        mirror_columns<Shape::width>(tile, reach, out_cols, columns + Shape::halo);
        __syncthreads();
        blur_tile_rows<FUSED, Shape::halo>(tile, columns, taps, reach, out, pitch, nullptr, 0);
    }
}

// Blurs levels with symmetric kernels, columns then rows, edges reflected (d c b a | a b c d | d c b a):
//
//     out(r, c) = sum_j w_|j| sum_i w_|i| in(r + i, c + j),   i, j = -radius ... radius,
//
// each sum from the smallest weight to the largest, as `add_pair` in blur.cuh says: one order of operations on every
// device. Where a level leads to the next octave, every second sample of it goes there too.
//
// One launch computes all levels of all octaves, which depend on each other. Each block blurs one piece of a level, in
// turn: the order of the pieces, which the host chooses, has what a piece needs before it. A block waits until that is
// written. It waits only for blocks that have begun, so the launch ends however few blocks run at once.
//
//     levels     flat                all octaves' levels, images stride samples apart
//     blurs      (n_blurs, 13)       see levels.cuh
//     pieces     (n_pieces, 4)       blur, first row, first column, image; the grid has n_pieces blocks
//     piece_rows, piece_cols         size of a piece, samples; less at the ends of a level
//     taps       flat                of each blur w_0 ... w_radius; in float, w_0 is implied
//     turns      (1,)                launches in the upper half, turns taken in the lower; 0 before the first launch
//     n_bands                        rows of pieces of all blurs together
//     done       (images, n_bands)   pieces written in all launches so far, of each row of pieces
KERNEL blur(real* levels, const long long stride, const long long* __restrict__ blurs, const int* __restrict__ pieces,
            const int n_pieces, const int piece_rows, const int piece_cols, const real* __restrict__ taps,
            long long* turns, const int n_bands, int* done) {
    __shared__ BlurBlock<shared_samples_of(BlurRadii{})> block;  // nothing else is shared: see BlurMemory
    Blur& blur = block.blur;
    Piece& piece = block.piece;
    if (threadIdx.x == 0 && threadIdx.y == 0) {
        const Turn turn = take_turn(turns, n_pieces);
        const int* row = pieces + 4LL * turn.number;
        blur = blur_of(blurs, row[0]);
        piece = piece_of(row, turn, blur, piece_rows, piece_cols);
        wait_for_rows(blur, piece, piece_rows, done + (long long)piece.image * n_bands);
    }
    __syncthreads();
    levels += piece.image * stride;
    done += (long long)piece.image * n_bands;
    for (int row = piece.row_0; row < piece.row_1; row += BLUR_TILE_ROWS) {
        for (int col = piece.col_0; col < piece.col_1; col += BLUR_TILE_COLS) {
            blur_by_radius(BlurRadii{}, blur, tile_of(piece, row, col), levels, taps, block.samples);
            __syncthreads();  // before shared memory is written anew, and before another block may read the tile
        }
    }
    if (threadIdx.x == 0 && threadIdx.y == 0) add_release(done + blur.band + piece.row_0 / piece_rows);
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

// The blurs of one launch: which levels they read and write, and what they wait for; for scale_space.cu.
#pragma once
#include "blur.cuh"
#include "turns.cuh"

// The blur of one level. Rows of pieces of all blurs are numbered one after the other; they are called bands.
//
//     in, out        positions of row 0 of the level that is read and of the one that is written
//     rows, cols, pitch   of both levels
//     next, next_pitch    position of row 0 of the next octave's level 0, and its pitch; next_pitch 0: not wanted
//     radius, taps   radius, and position of the weights
//     band           number of the first band that is written
//     needed_band    number of the first band of the level that is waited for; -1 if the samples that are read are
//                    there before the launch
//     needed_step    rows of that level for each row that is read: 2 where an octave begins
//     needed_pieces  pieces in each of that level's bands
struct Blur {
    long long in, out, next;
    int rows, cols, pitch, next_pitch, radius, taps, band, needed_band, needed_step, needed_pieces;
};

#define BLUR_COLUMNS 13

// blurs: (n_blurs, 13) of the above, in that order
DEVICE Blur blur_of(const long long* __restrict__ blurs, int b) {
    const long long* row = blurs + BLUR_COLUMNS * b;
    return {row[0],      row[1],      row[2],      int(row[3]),  int(row[4]),  int(row[5]), int(row[6]),
            int(row[7]), int(row[8]), int(row[9]), int(row[10]), int(row[11]), int(row[12])};
}

// A piece of a level: rows [row_0, row_1), columns [col_0, col_1).
struct Piece {
    int image, row_0, row_1, col_0, col_1;
    unsigned launch;  // of the turn in which it was taken
};

// The piece of a row of the table: blur, first row, first column, image.
DEVICE Piece piece_of(const int* __restrict__ row, const Turn& turn, const Blur& blur, int piece_rows, int piece_cols) {
    return {
        row[3],     row[1], smaller(row[1] + piece_rows, blur.rows), row[2], smaller(row[2] + piece_cols, blur.cols),
        turn.launch};
}

// The tile of a piece that begins there.
DEVICE BlurTile tile_of(const Piece& piece, int row, int col) {
    return {row, smaller(row + BLUR_TILE_ROWS, piece.row_1), col, smaller(col + BLUR_TILE_COLS, piece.col_1)};
}

// Waits until the rows that a piece needs are written.
DEVICE void wait_for_rows(const Blur& blur, const Piece& piece, int piece_rows, const int* done) {
    if (blur.needed_band < 0) return;
    const int first_row = larger(piece.row_0 - blur.radius, 0);
    const int last_row = smaller(piece.row_1 + blur.radius, blur.rows) - 1;
    const int first = blur.needed_step * first_row / piece_rows, last = blur.needed_step * last_row / piece_rows;
    for (int band = first; band <= last; ++band)
        wait_acquire(done + blur.needed_band + band, piece.launch * blur.needed_pieces, blur.needed_pieces);
}

// The radii for which blurs are compiled, the largest first; 0 stands for all others, whose blurs have loops over a
// radius that is known only when running.
template <int... radii>
struct Radii {};
using BlurRadii = Radii<BLUR_RADII>;

// Bytes of static shared memory that a block may have on every GPU.
#define MAX_SHARED_BYTES (48 * 1024)

// All shared memory of a block of `blur`: the samples of a tile, and the piece that is blurred.
template <int n_samples>
struct BlurBlock {
    alignas(16) real samples[n_samples];
    Blur blur;
    Piece piece;
};

template <int RADIUS>
struct BlurMemory {
    using Shape = BlurShape<(RADIUS > 0 ? RADIUS : MAX_RADIUS)>;
    static constexpr int with_copy = Shape::columns_size + Shape::copy_size;
    static constexpr bool copies = COPIES_TILES && RADIUS > 0 && RADIUS <= MAX_UNROLLED &&
                                   sizeof(BlurBlock<with_copy>) <= MAX_SHARED_BYTES;
    static constexpr int samples = copies ? with_copy : Shape::columns_size;
    static_assert(!COPIES_TILES || RADIUS == 0 || sizeof(BlurBlock<samples>) <= MAX_SHARED_BYTES,
                  "the tiles are too large for a blur of this radius");
};

// Samples of shared memory that the blurs need.
template <int... radii>
constexpr int shared_samples_of(Radii<radii...>) {
    int most = 0;
    ((most = BlurMemory<radii>::samples > most ? BlurMemory<radii>::samples : most), ...);
    return most;
}

// Blurs a tile: its columns, with a halo, into shared memory, then its rows from there.
template <int RADIUS>
OUTLINED void blur_tile(const Blur& blur, const BlurTile& tile, real* levels, const real* __restrict__ taps,
                        real* __restrict__ shared) {
    constexpr int unrolled = RADIUS <= MAX_UNROLLED ? RADIUS : 0;
    using Shape = typename BlurMemory<RADIUS>::Shape;
    const int reach = RADIUS > 0 ? RADIUS : blur.radius;
    const real* in = levels + blur.in;
    real* columns = shared;
    taps += blur.taps;
    if constexpr (BlurMemory<RADIUS>::copies) {
        real* copy = shared + Shape::columns_size;
        copy_tile<Shape::radius>(tile, in, blur.rows, blur.pitch, copy);
        __syncthreads();
        blur_tile_columns<unrolled, Shape::halo, true>(tile, copy + Shape::halo - tile.col_0, reach, Shape::copy_rows,
                                                       blur.cols, Shape::width, taps, reach, columns);
    } else {
        blur_tile_columns<unrolled, Shape::halo, false>(tile, in, tile.row_0, blur.rows, blur.cols, blur.pitch, taps,
                                                        reach, columns);
    }
    __syncthreads();
    mirror_columns<Shape::width>(tile, reach, blur.cols, columns + Shape::halo);
    __syncthreads();
    blur_tile_rows<unrolled, Shape::halo>(tile, columns, taps, reach, levels + blur.out, blur.pitch, levels + blur.next,
                                          blur.next_pitch);
}

// The same by the code for the blur's radius.
template <int... radii>
DEVICE void blur_by_radius(Radii<radii...>, const Blur& blur, const BlurTile& tile, real* levels,
                           const real* __restrict__ taps, real* __restrict__ shared) {
    (void)((radii == 0 || radii == blur.radius ? (blur_tile<radii>(blur, tile, levels, taps, shared), true) : false) ||
           ...);
}

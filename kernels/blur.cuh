// The blur of a tile: columns into shared memory, then rows from there; for scale_space.cu and levels.cuh.
//
// On a GPU the tile, with a halo, is copied into shared memory first, as each of its samples is read 2 radius + 1
// times; a host's cache does that by itself. A thread blurs BLUR_ROWS samples of a column that lie below each other,
// then BLUR_ROW_SPAN of a row that lie side by side, so that samples that several of them need are loaded once.
#pragma once
#include "samples.cuh"

// The widest radius whose taps are written out one by one: beyond it a GPU's registers run out.
#define MAX_UNROLLED 32

// A tile of a level: its rows and columns, the ends not included.
struct BlurTile {
    int row_0, row_1, col_0, col_1;
};

DEVICE BlurTile tile_of(int number, int rows, int cols) {
    const unsigned across = ceil_div(cols, BLUR_TILE_COLS), down = unsigned(number) / across;
    const int row = down * BLUR_TILE_ROWS, col = (number - down * across) * BLUR_TILE_COLS;
    return {row, smaller(row + BLUR_TILE_ROWS, rows), col, smaller(col + BLUR_TILE_COLS, cols)};
}

DEVICE int n_tiles_of(int rows, int cols) { return ceil_div(rows, BLUR_TILE_ROWS) * ceil_div(cols, BLUR_TILE_COLS); }

// What a tile takes in shared memory: its blurred columns with a halo on both sides, and a copy with a halo all around.
template <int widest>
struct BlurShape {
    static constexpr int radius = widest;
    static constexpr int halo = (radius + ALIGNED - 1) / ALIGNED * ALIGNED;
    static constexpr int width = BLUR_TILE_COLS + 2 * halo;
    static constexpr int columns_size = BLUR_TILE_ROWS * width;
    static constexpr int copy_rows = BLUR_TILE_ROWS + 2 * radius, copy_size = copy_rows * width;
};

// Copies a tile with its halo, rows mirrored at the edges. There is nothing beyond a row's ends: see mirror_columns.
template <int radius>
DEVICE void copy_tile(BlurTile tile, const real* __restrict__ in, int rows, int pitch, real* __restrict__ copy) {
    using Shape = BlurShape<radius>;
    const bool inside = tile.row_0 >= radius && tile.row_0 + BLUR_TILE_ROWS + radius <= rows;
    const long long step = (long long)blockDim.y * pitch;
    for (int group = threadIdx.x; group < Shape::width / ALIGNED; group += blockDim.x) {
        const int col = tile.col_0 - Shape::halo + group * ALIGNED, first = tile.row_0 - radius;
        if (col < 0 || col >= pitch) continue;
        const real* from = in + (long long)(first + int(threadIdx.y)) * pitch + col;
        for (int i = threadIdx.y; i < Shape::copy_rows; i += blockDim.y) {
            const real* there = inside ? from : in + (long long)reflect(first + i, rows) * pitch + col;
            real* to = copy + i * Shape::width + group * ALIGNED;
            begin_copy(there, to);
            from += step;
        }
    }
    finish_copies();
}

// The sum over the taps, begun at the centre, then the pairs of samples as far from it, the outermost first.
//
// In float a term is a difference from the centre: what is rounded is small, the weights add up to 1 by construction,
// and a third of the plain sum's error remains. In double the terms, their order and their rounding are those of
// scipy.ndimage.correlate1d, so that levels are scikit-image's bit for bit, ties included.
DEVICE float begin_sum(float, float) { return 0; }
DEVICE float add_pair(float sum, float tap, float pair, float centre) { return fused(tap, pair - 2 * centre, sum); }
DEVICE float end_sum(float sum, float centre) { return centre + sum; }
DEVICE double begin_sum(double centre, double tap) { return centre * tap; }
DEVICE double add_pair(double sum, double tap, double pair, double) { return sum + pair * tap; }
DEVICE double end_sum(double sum, double) { return sum; }

// BLUR_ROWS rows of `count` columns, whose neighbours `radius` rows away exist.
template <int radius, int most>
DEVICE void blur_columns(const real* __restrict__ first, int pitch, const real* __restrict__ taps, int count,
                         real* __restrict__ blurred, int width) {
    FOR_SAMPLES(col, count, most) {
        const real* here = first + col;
        real sum[BLUR_ROWS], centre[BLUR_ROWS];
        UNROLL
        for (int row = 0; row < BLUR_ROWS; ++row) {
            centre[row] = here[row * (long long)pitch];
            sum[row] = begin_sum(centre[row], taps[0]);
        }
        UNROLL
        for (int k = radius; k >= 1; --k) {
            UNROLL
            for (int row = 0; row < BLUR_ROWS; ++row) {
                const real pair = here[(row - k) * (long long)pitch] + here[(row + k) * (long long)pitch];
                sum[row] = add_pair(sum[row], taps[k], pair, centre[row]);
            }
        }
        UNROLL
        for (int row = 0; row < BLUR_ROWS; ++row) blurred[row * width + col] = end_sum(sum[row], centre[row]);
    }
}

// The same for one row anywhere, edges reflected, and for a radius known only when running.
DEVICE void blur_columns_reflected(const real* __restrict__ in, int row, int rows, int pitch,
                                   const real* __restrict__ taps, int radius, int count, real* __restrict__ blurred) {
    const real* here = in + (long long)row * pitch;
    VECTORIZE
    for (int col = 0; col < count; ++col) blurred[col] = begin_sum(here[col], taps[0]);
    for (int k = radius; k >= 1; --k) {
        const real* above = in + (long long)reflect(row - k, rows) * pitch;
        const real* below = in + (long long)reflect(row + k, rows) * pitch;
        VECTORIZE
        for (int col = 0; col < count; ++col)
            blurred[col] = add_pair(blurred[col], taps[k], above[col] + below[col], here[col]);
    }
    VECTORIZE
    for (int col = 0; col < count; ++col) blurred[col] = end_sum(blurred[col], here[col]);
}

// The columns of a tile and of its halo, as far as the level goes. `first` is row `row_0` of `rows` rows, of which
// those `reach` away are mirrored where there are none, unless all are there. 0 as `radius` says that it is only known
// when running, as `reach`.
template <int radius, int halo, bool all_there>
DEVICE void blur_tile_columns(BlurTile tile, const real* __restrict__ in, int row_0, int rows, int cols, int pitch,
                              const real* __restrict__ taps, int reach, real* __restrict__ columns) {
    constexpr int width = BLUR_TILE_COLS + 2 * halo;
    constexpr int span = BLUR_COLUMN_SPAN < width ? BLUR_COLUMN_SPAN : width, spans = width / span;
    const int left = larger(tile.col_0 - halo, 0), right = smaller(tile.col_1 + reach, cols);
    const int tile_rows = tile.row_1 - tile.row_0;
    const unsigned n_column_spans = spans * ceil_div(tile_rows, BLUR_ROWS), n_threads = blockDim.x * blockDim.y;
    for (unsigned i = threadIdx.y * blockDim.x + threadIdx.x; i < n_column_spans; i += n_threads) {
        const int first = i / spans * BLUR_ROWS, row = row_0 + first, first_col = tile.col_0 - halo + i % spans * span;
        const int begin = larger(left, first_col), count = smaller(right, first_col + span) - begin;
        if (count <= 0) continue;
        real* blurred = columns + first * width + begin - tile.col_0 + halo;
        if (radius > 0 && (all_there || (row >= reach && row + BLUR_ROWS + reach <= rows))) {
            blur_columns<radius, span>(in + (long long)row * pitch + begin, pitch, taps, count, blurred, width);
        } else {
            for (int j = 0; j < smaller(BLUR_ROWS, tile_rows - first); ++j)
                blur_columns_reflected(in + begin, row + j, rows, pitch, taps, reach, count, blurred + j * width);
        }
    }
}

// Blurred columns beyond a level's edges: those inside, mirrored.
template <int width>
DEVICE void mirror_columns(BlurTile tile, int reach, int cols, real* __restrict__ columns) {
    if (tile.col_0 >= reach && tile.col_1 + reach <= cols) return;
    for (int row = tile.row_0 + threadIdx.y; row < tile.row_1; row += blockDim.y) {
        real* blurred = columns + (row - tile.row_0) * width - tile.col_0;
        for (int col = tile.col_0 - reach + threadIdx.x; col < 0; col += blockDim.x)
            blurred[col] = blurred[reflect(col, cols)];
        for (int col = cols + threadIdx.x; col < tile.col_1 + reach; col += blockDim.x)
            blurred[col] = blurred[reflect(col, cols)];
    }
}

// `count` samples of a row, blurred along it.
template <int radius>
DEVICE void blur_row(const real* __restrict__ blurred, const real* __restrict__ taps, int reach, int count,
                     real* __restrict__ out) {
    if (radius > 0) {
        FOR_SAMPLES(col, count, BLUR_ROW_SPAN) {
            const real centre = blurred[col];
            real sum = begin_sum(centre, taps[0]);
            UNROLL
            for (int k = radius; k >= 1; --k) sum = add_pair(sum, taps[k], blurred[col - k] + blurred[col + k], centre);
            out[col] = end_sum(sum, centre);
        }
    } else {
        FOR_SAMPLES(col, count, BLUR_ROW_SPAN) out[col] = begin_sum(blurred[col], taps[0]);
        for (int k = reach; k >= 1; --k) {
            FOR_SAMPLES(col, count, BLUR_ROW_SPAN)
            out[col] = add_pair(out[col], taps[k], blurred[col - k] + blurred[col + k], blurred[col]);
        }
        FOR_SAMPLES(col, count, BLUR_ROW_SPAN) out[col] = end_sum(out[col], blurred[col]);
    }
}

// The rows of a tile; every second sample of every second one also goes to `next`, unless next_pitch is 0.
template <int radius, int halo>
DEVICE void blur_tile_rows(BlurTile tile, const real* __restrict__ columns, const real* __restrict__ taps, int reach,
                           real* __restrict__ out, int pitch, real* __restrict__ next, int next_pitch) {
    constexpr int width = BLUR_TILE_COLS + 2 * halo, spans = BLUR_TILE_COLS / (BLUR_ROW_SPAN * BLUR_ROW_PARTS);
    const unsigned n_row_spans = spans * (tile.row_1 - tile.row_0), n_threads = blockDim.x * blockDim.y;
    for (unsigned i = threadIdx.y * blockDim.x + threadIdx.x; i < n_row_spans; i += n_threads) {
        const int in_tile = i / spans, row = tile.row_0 + in_tile;
        const int first = i % spans * BLUR_ROW_SPAN, count = tile.col_1 - tile.col_0 - first;
        const real* blurred = columns + in_tile * width + halo + first;
        real* to = out + (long long)row * pitch + tile.col_0 + first;
        const bool halves = next_pitch > 0 && row % 2 == 0;
        real* half = next + (long long)(row / 2) * next_pitch + (tile.col_0 + first) / 2;
        UNROLL
        for (int part = 0; part < BLUR_ROW_PARTS; ++part) {
            const int away = part * spans * BLUR_ROW_SPAN, n = smaller(BLUR_ROW_SPAN, count - away);
            if (n <= 0) break;
            blur_row<radius>(ALIGNED_POINTER(blurred + away), taps, reach, n, ALIGNED_POINTER(to + away));
            if (!halves) continue;
            const int n_halves = ceil_div(n, 2);
            FOR_SAMPLES(j, n_halves, BLUR_ROW_SPAN / 2) half[away / 2 + j] = to[away + 2 * j];
        }
    }
}

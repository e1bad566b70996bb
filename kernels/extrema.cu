// Extrema of the difference of Gaussians (Otero & Delbracio 2014, Alg. 4 with the first threshold of Alg. 5).
//
// With D_s = L_{s+1} - L_s, never stored, a sample (row, col, s), 1 <= s <= n_scales, not on the octave's border, is a
// candidate if |D_s| >= threshold and it is greater than all of its 26 neighbours in (row, col, s), or less than all.
#include "octave.cuh"
#include "samples.cuh"

// Differences of a tile in shared memory: planes of its samples and a border, of which those beside it are read with
// the others at once. There are as many planes as EXTREMA_SCALES scales need; the next scales' take the places of those
// that are no longer needed.
#define DOG_WIDTH (EXTREMA_TILE_COLS + 2 * ALIGNED)
#define DOG_ROWS (EXTREMA_TILE_ROWS + 2)
#define DOG_PLANES (EXTREMA_SCALES + 2)
#define DOG_ORIGIN (DOG_WIDTH + ALIGNED)  // the tile's first sample in a plane

// A tile of an octave: its first row and column, and of its rows and columns, counted from there, those in which
// candidates may be.
struct ExtremaTile {
    Octave octave;
    int number, row, col;  // the octave's number
    int first_row, end_row, first_col, end_col;
};

// The tile of that number among those of all octaves; `number` is n_octaves if there is none.
DEVICE ExtremaTile extrema_tile_of(unsigned tile, const long long* __restrict__ octaves, int n_octaves) {
    for (int o = 0; o < n_octaves; ++o) {
        const Octave octave = octave_of(octaves, o);
        const unsigned across = ceil_div(octave.cols, EXTREMA_TILE_COLS);
        const unsigned n_tiles = ceil_div(octave.end - octave.begin, EXTREMA_TILE_ROWS) * across;
        if (tile >= n_tiles) {
            tile -= n_tiles;
            continue;
        }
        const unsigned down = tile / across;
        const int row = octave.begin + down * EXTREMA_TILE_ROWS, col = (tile - down * across) * EXTREMA_TILE_COLS;
        return {octave,
                o,
                row,
                col,
                row == 0 ? 1 : 0,
                smaller(EXTREMA_TILE_ROWS, smaller(octave.end, octave.rows - 1) - row),
                col == 0 ? 1 : 0,
                smaller(EXTREMA_TILE_COLS, octave.cols - 1 - col)};
    }
    return {Octave{}, n_octaves, 0, 0, 0, 0, 0, 0};
}

// Computes `n` differences of a tile and its border, from difference `first` on. `levels` is the tile's first sample in
// level 0. Where there are no more levels, the last one is taken again, and nobody looks at the difference.
template <int n>
DEVICE void subtract_levels(const ExtremaTile& tile, const real* __restrict__ levels, int first, int n_levels,
                            real (*__restrict__ planes)[DOG_ROWS * DOG_WIDTH]) {
    constexpr unsigned span = EXTREMA_SPAN < DOG_WIDTH ? EXTREMA_SPAN : DOG_WIDTH, spans = DOG_WIDTH / span;
    constexpr int at_once = COPIES_TILES ? n : 1;
    const int border_row = tile.first_row - 1, n_rows = tile.end_row + 1 - border_row;
    const unsigned n_spans = spans * n_rows, n_threads = blockDim.x * blockDim.y;
    UNROLL
    for (int begin = first; begin < first + n; begin += at_once) {
        for (unsigned i = threadIdx.y * blockDim.x + threadIdx.x; i < n_spans; i += n_threads) {
            const int row = border_row + int(i / spans);
            const int col = larger(int(i % spans * span) - ALIGNED, tile.col == 0 ? 0 : -ALIGNED);
            const int count = smaller(tile.end_col + 1, int((i % spans + 1) * span) - ALIGNED) - col;
            if (count <= 0) continue;
            const real* sample = levels + (long long)row * tile.octave.pitch + col;
            const real* from[at_once + 1];
            real* to[at_once];
            UNROLL
            for (int k = 0; k <= at_once; ++k) from[k] = sample + smaller(begin + k, n_levels - 1) * tile.octave.plane;
            UNROLL
            for (int k = 0; k < at_once; ++k)
                to[k] = planes[unsigned(begin + k) % DOG_PLANES] + DOG_ORIGIN + row * DOG_WIDTH + col;
            subtract_samples<at_once>(from, count, to);
        }
    }
}

// Whether one of ALIGNED samples side by side reaches the threshold.
DEVICE bool some_reach(const real* __restrict__ centre, real threshold) {
    int any = 0;
    VECTORIZE
    for (int lane = 0; lane < ALIGNED; ++lane) any |= magnitude_of(centre[lane]) >= threshold;
    return any;
}

// Marks, of ALIGNED samples side by side, those that reach the threshold and are greater than all of their 26
// neighbours in three planes, or less than all; whether there is one.
DEVICE bool mark_extrema(const real* __restrict__ below, const real* __restrict__ centre,
                         const real* __restrict__ above, real threshold, int* __restrict__ is_extremum) {
    int any = 0;
    FOR_SAMPLES(lane, ALIGNED, ALIGNED) {
        const real value = centre[lane];
        real most = below[lane], least = most;
        UNROLL
        for (int neighbour = 0; neighbour < 9; ++neighbour) {
            const int at = lane + (neighbour / 3 - 1) * DOG_WIDTH + neighbour % 3 - 1;
            most = MAXIMUM(most, MAXIMUM(below[at], above[at]));
            least = MINIMUM(least, MINIMUM(below[at], above[at]));
            if (neighbour == 4) continue;
            most = MAXIMUM(most, centre[at]);
            least = MINIMUM(least, centre[at]);
        }
        is_extremum[lane] = (magnitude_of(value) >= threshold) & ((value > most) | (value < least));
        any |= is_extremum[lane];
    }
    return any;
}

// Appends the candidates of all octaves to a list, in no order. The list never overflows: where `count` ends above
// `capacity`, the rest was counted but not written. A block looks at a tile, EXTREMA_SCALES scales of
// it at once; the differences are in no other memory than a block's.
//
//     levels     flat                all octaves' levels, images stride samples apart; room at the end for the host's
//                                    vectors to read into
//     octaves    (n_octaves, 8)      see octave.cuh
//     n_tiles                        tiles of all octaves, or more
//     threshold                      0.8 c_dog, intensity
//     count      (images,)           0 before
//     row_counts (images, n_rows)    candidates in each row of all octaves; 0 before
//     keys       (images, capacity)  packed octave, row, column, scale
KERNEL find_extrema(const real* __restrict__ levels, const long long stride, const long long* __restrict__ octaves,
                    const int n_octaves, const int n_tiles, const int n_scales, const real threshold,
                    const int capacity, const int n_rows, int* __restrict__ count, int* __restrict__ row_counts,
                    long long* __restrict__ keys) {
    alignas(16) __shared__ real planes[DOG_PLANES][DOG_ROWS * DOG_WIDTH];
    levels += blockIdx.z * stride;
    count += blockIdx.z;
    row_counts += (long long)blockIdx.z * n_rows;
    keys += (long long)blockIdx.z * capacity;
    auto append = [&](const ExtremaTile& tile, int row, int col, int scale, const int* is_extremum) {
        FOR_SAMPLES(lane, ALIGNED, ALIGNED) {
            if (!is_extremum[lane] || col + lane < tile.first_col || col + lane >= tile.end_col) continue;
            atomicAdd(&row_counts[tile.octave.first_row + tile.row + row], 1);
            const int slot = atomicAdd(count, 1);
            if (slot < capacity) keys[slot] = key_of({tile.number, tile.row + row, tile.col + col + lane, scale});
        }
    };
    for (int number = blockIdx.x; number < n_tiles; number += gridDim.x) {
        const ExtremaTile tile = extrema_tile_of(number, octaves, n_octaves);
        if (tile.number == n_octaves) return;
        const real* level_0 = levels + tile.octave.offset + (long long)tile.row * tile.octave.pitch + tile.col;
        for (int first = 1; first <= n_scales; first += EXTREMA_SCALES) {
            if (first == 1) {
                subtract_levels<DOG_PLANES>(tile, level_0, 0, n_scales + 3, planes);
            } else {
                subtract_levels<EXTREMA_SCALES>(tile, level_0, first + 1, n_scales + 3, planes);
            }
            __syncthreads();
            const real* dog[DOG_PLANES];
            UNROLL
            for (int k = 0; k < DOG_PLANES; ++k) dog[k] = planes[unsigned(first - 1 + k) % DOG_PLANES] + DOG_ORIGIN;
            for (int row = tile.first_row + threadIdx.y; row < tile.end_row; row += blockDim.y) {
                for (int col = threadIdx.x * ALIGNED; col < tile.end_col; col += blockDim.x * ALIGNED) {
                    const int at = row * DOG_WIDTH + col;
                    UNROLL
                    for (int k = 0; k < EXTREMA_SCALES; ++k) {
                        int is_extremum[ALIGNED];
                        if (first + k <= n_scales && some_reach(dog[k + 1] + at, threshold) &&
                            mark_extrema(dog[k] + at, dog[k + 1] + at, dog[k + 2] + at, threshold, is_extremum))
                            append(tile, row, col, first + k, is_extremum);
                    }
                }
            }
            __syncthreads();
        }
    }
}

// Extrema of the difference of Gaussians (Otero & Delbracio 2014, Alg. 4 with the first threshold of Alg. 5).
//
// With D_s = L_{s+1} - L_s, never stored, a sample (row, col, s), 1 <= s <= n_scales, not on the octave's border, is a
// candidate if |D_s| >= threshold and it is greater than all of its 26 neighbours in (row, col, s), or less than all.
#include "octave.cuh"

// A plane of differences in shared memory: a tile and a border of one sample, on a host of one vector.
#define DOG_MARGIN LANES
#define DOG_WIDTH (EXTREMA_TILE_COLS + 2 * DOG_MARGIN)
#define DOG_ROWS (EXTREMA_TILE_ROWS + 2)

// Of a GPU's levels each is read once: what is held of one in shared memory is there when the next one comes. A host
// reads it again, from its cache, which takes less time than a copy.
#define HELD_SAMPLES (LANES > 1 ? 1 : DOG_ROWS * DOG_WIDTH)

// Reads a level's samples of a tile and its border, from the tile's origin; gives their differences from those of the
// level `plane` samples before, and holds them for the next. Each thread comes to its own samples again.
DEVICE void next_level(const real* __restrict__ level, long long plane, int pitch, int row_0, int row_1, int col_0,
                       int col_1, real* __restrict__ held, real* __restrict__ dog) {
    for (int row = row_0 + threadIdx.y; row < row_1; row += blockDim.y) {
        const real* here = level + (long long)row * pitch;
        const real* before = LANES > 1 ? here - plane : held + row * DOG_WIDTH;
        VECTORIZE
        for (int col = col_0 + threadIdx.x; col < col_1; col += blockDim.x) {
            const real sample = here[col];
            dog[row * DOG_WIDTH + col] = sample - before[col];
            if (LANES == 1) held[row * DOG_WIDTH + col] = sample;
        }
    }
}

// The first level's samples, held for the next.
DEVICE void first_level_held(const real* __restrict__ level, int pitch, int row_0, int row_1, int col_0, int col_1,
                             real* __restrict__ held) {
    if (LANES > 1) return;
    for (int row = row_0 + threadIdx.y; row < row_1; row += blockDim.y)
        for (int col = col_0 + threadIdx.x; col < col_1; col += blockDim.x)
            held[row * DOG_WIDTH + col] = level[(long long)row * pitch + col];
}

// Appends the candidates of all octaves to a list, in no order. The list never overflows: where `count` ends above
// `capacity`, the rest was counted but not written. A block looks at a tile, with three planes of differences in shared
// memory, which roll over the scales: each level is read twice, the differences are in no other memory.
//
//     levels     flat                all octaves' levels, images stride samples apart; room at the end for the host's
//                                    vectors to read into
//     octaves    (n_octaves, 8)      see octave.cuh
//     threshold                      0.8 c_dog, intensity
//     count      (images,)           0 before
//     row_counts (images, n_rows)    candidates in each row of all octaves; 0 before
//     keys       (images, capacity)  packed octave, row, column, scale
KERNEL find_extrema(const real* __restrict__ levels, const long long stride, const long long* __restrict__ octaves,
                    const int n_octaves, const int n_scales, const real threshold, const int capacity, const int n_rows,
                    int* __restrict__ count, int* __restrict__ row_counts, long long* __restrict__ keys) {
    const long long z = blockIdx.z;
    __shared__ real planes[3][DOG_ROWS * DOG_WIDTH], held_samples[HELD_SAMPLES];
    for (int tile = blockIdx.x;; tile += gridDim.x) {
        int o = 0, of_octave = tile;
        Octave octave{};
        for (; o < n_octaves; ++o) {
            octave = octave_of(octaves, o);
            const int n_tiles =
                ceil_div(octave.end - octave.begin, EXTREMA_TILE_ROWS) * ceil_div(octave.cols, EXTREMA_TILE_COLS);
            if (of_octave < n_tiles) break;
            of_octave -= n_tiles;
        }
        if (o == n_octaves) return;

        // rows and columns count from the tile's origin
        const int tiles_across = ceil_div(octave.cols, EXTREMA_TILE_COLS);
        const int origin_row = octave.begin + of_octave / tiles_across * EXTREMA_TILE_ROWS;
        const int origin_col = of_octave % tiles_across * EXTREMA_TILE_COLS;
        const int first_row = origin_row == 0 ? 1 : 0, first_col = origin_col == 0 ? 1 : 0;
        const int end_row = smaller(EXTREMA_TILE_ROWS, smaller(octave.end, octave.rows - 1) - origin_row);
        const int end_col = smaller(EXTREMA_TILE_COLS, octave.cols - 1 - origin_col);
        const real* level = levels + z * stride + octave.offset + (long long)origin_row * octave.pitch + origin_col;
        const int border_col = origin_col == 0 ? 0 : -DOG_MARGIN, tile_origin = DOG_WIDTH + DOG_MARGIN;
        real* held = held_samples + (LANES > 1 ? 0 : tile_origin);
        first_level_held(level, octave.pitch, first_row - 1, end_row + 1, border_col, end_col + 1, held);
        auto roll = [&](int s) {  // the difference s
            next_level(level + (s + 1) * octave.plane, octave.plane, octave.pitch, first_row - 1, end_row + 1,
                       border_col, end_col + 1, held, planes[s % 3] + tile_origin);
        };
        roll(0);
        roll(1);
        for (int s = 1; s <= n_scales; ++s) {
            roll(s + 1);
            __syncthreads();
            for (int row = first_row + threadIdx.y; row < end_row; row += blockDim.y) {
                for (int col = first_col / LANES * LANES + threadIdx.x * LANES; col < end_col;
                     col += blockDim.x * LANES) {
                    const int at = (row + 1) * DOG_WIDTH + DOG_MARGIN + col;
                    const real* centre = planes[s % 3] + at;
                    const real* below = planes[(s - 1) % 3] + at;
                    const real* above = planes[(s + 1) % 3] + at;
                    int strong = 0;
                    VECTORIZE
                    for (int lane = 0; lane < LANES; ++lane) strong |= magnitude_of(centre[lane]) >= threshold;
                    if (!strong) continue;
                    int extreme[LANES], any = 0;
                    VECTORIZE
                    for (int lane = 0; lane < LANES; ++lane) {
                        const real value = centre[lane];
                        real most = below[lane], least = most;
                        UNROLL
                        for (int neighbour = 0; neighbour < 9; ++neighbour) {
                            const int to = lane + (neighbour / 3 - 1) * DOG_WIDTH + neighbour % 3 - 1;
                            most = larger(most, larger(below[to], above[to]));
                            least = smaller(least, smaller(below[to], above[to]));
                            if (neighbour == 4) continue;
                            most = larger(most, centre[to]);
                            least = smaller(least, centre[to]);
                        }
                        extreme[lane] = (magnitude_of(value) >= threshold) & ((value > most) | (value < least));
                        any |= extreme[lane];
                    }
                    if (!any) continue;
                    for (int lane = 0; lane < LANES; ++lane) {
                        if (!extreme[lane] || col + lane < first_col || col + lane >= end_col) continue;
                        atomicAdd(&row_counts[z * n_rows + octave.first_row + origin_row + row], 1);
                        const int slot = atomicAdd(&count[z], 1);
                        if (slot < capacity)
                            keys[z * capacity + slot] = key_of({o, origin_row + row, origin_col + col + lane, s});
                    }
                }
            }
            __syncthreads();
        }
    }
}

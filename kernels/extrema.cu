// Extrema of the difference of Gaussians (Otero & Delbracio 2014, Alg. 4 with the first threshold of Alg. 5).
//
// With D_s = L_{s+1} - L_s, never stored, a sample (row, col, s), 1 <= s <= n_scales, not on the octave's border, is a
// candidate if |D_s| >= threshold and it is greater than all of its 26 neighbours in (row, col, s), or less than all.
#include "common.cuh"

// A candidate as one number that sorts as scikit-image orders keypoints: octave, row, column, scale.
DEVICE long long pack(int octave, int row, int col, int scale) {
    return (long long)octave << 58 | (long long)row << 32 | (long long)col << 6 | scale;
}

// Appends the candidates of all octaves to a list, in no order. The list never overflows: where `count` ends above
// `capacity`, the rest was counted but not written.
//
//     levels     flat                all octaves' levels; LANES samples of room at the end
//     octaves    (n_octaves, 3)      offset, rows, cols of each octave
//     threshold                      0.8 c_dog, intensity
//     count      (1,)                0 before
//     keys       (capacity,)         packed octave, row, column, scale
KERNEL find_extrema(const real* __restrict__ levels, const long long* __restrict__ octaves, const int n_octaves,
                    const int n_scales, const real threshold, const int capacity, int* __restrict__ count,
                    long long* __restrict__ keys) {
    for (int tile = blockIdx.x;; tile += gridDim.x) {
        int o = 0, of_octave = tile;
        Octave octave{};
        for (; o < n_octaves; ++o) {
            octave = octave_of(octaves, o);
            const int n_tiles = ceil_div(octave.rows, EXTREMA_TILE_ROWS) * ceil_div(octave.cols, EXTREMA_TILE_COLS);
            if (of_octave < n_tiles) break;
            of_octave -= n_tiles;
        }
        if (o == n_octaves) return;

        const long long cols = octave.cols, plane = octave.rows * cols;
        const int tiles_across = ceil_div(octave.cols, EXTREMA_TILE_COLS);
        const int row_0 = of_octave / tiles_across * EXTREMA_TILE_ROWS;
        const int col_0 = of_octave % tiles_across * EXTREMA_TILE_COLS;
        const int row_1 = smaller(row_0 + EXTREMA_TILE_ROWS, octave.rows - 1);
        const int col_1 = smaller(col_0 + EXTREMA_TILE_COLS, octave.cols - 1);
        for (int row = larger(row_0, 1) + threadIdx.y; row < row_1; row += blockDim.y) {
            for (int col = larger(col_0, 1) + threadIdx.x * LANES; col < col_1; col += blockDim.x * LANES) {
                for (int s = 1; s <= n_scales; ++s) {
                    const real* here = levels + octave.offset + s * plane + row * cols + col;
                    real centre[LANES], most[LANES], least[LANES];
                    int strong = 0;
                    VECTORIZE
                    for (int lane = 0; lane < LANES; ++lane) {
                        centre[lane] = here[plane + lane] - here[lane];
                        strong |= magnitude_of(centre[lane]) >= threshold;
                        most[lane] = least[lane] = here[plane + lane + 1] - here[lane + 1];
                    }
                    if (!strong) continue;
                    // the centre's own plane first: few samples are extrema even there
                    for (int turn = 0; turn < 3; ++turn) {
                        const real* lower = here + (turn == 0 ? 0 : turn == 1 ? -plane : plane);
                        UNROLL
                        for (int neighbour = 0; neighbour < 9; ++neighbour) {
                            const long long at = (neighbour / 3 - 1) * cols + neighbour % 3 - 1;
                            if (turn == 0 && neighbour == 4) continue;
                            VECTORIZE
                            for (int lane = 0; lane < LANES; ++lane) {
                                const real other = lower[at + plane + lane] - lower[at + lane];
                                most[lane] = larger(most[lane], other);
                                least[lane] = smaller(least[lane], other);
                            }
                        }
                        int alive = 0;
                        VECTORIZE
                        for (int lane = 0; lane < LANES; ++lane)
                            alive |= (magnitude_of(centre[lane]) >= threshold) &
                                     ((centre[lane] > most[lane]) | (centre[lane] < least[lane]));
                        if (!alive) break;
                        if (turn < 2) continue;
                        for (int lane = 0; lane < smaller(LANES, col_1 - col); ++lane) {
                            if (magnitude_of(centre[lane]) < threshold) continue;
                            if (centre[lane] <= most[lane] && centre[lane] >= least[lane]) continue;
                            const int slot = atomicAdd(count, 1);
                            if (slot < capacity) keys[slot] = pack(o, row, col + lane, s);
                        }
                    }
                }
            }
        }
    }
}

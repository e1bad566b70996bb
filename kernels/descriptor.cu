// Descriptors of the keypoints (Otero & Delbracio 2014, Alg. 12; Lowe 2004, section 6).
#include "common.cuh"

// Shrinks [first, last), the columns of one row of a patch, to those that can lie in its turned window, where a
// coordinate is start + step (col - centre) and less than `half` in size; a column or two wider, against rounding.
DEVICE void clip_columns(real start, real step, real half, real centre, int* first, int* last) {
    if (magnitude_of(step) < real(1e-3)) return;
    const real one = (-half - start) / step, other = (half - start) / step;
    const real from = floor_of(centre + smaller(one, other)) - 1, to = floor_of(centre + larger(one, other)) + 3;
    *first = from > real(*first) ? int(smaller(from, real(*last))) : *first;
    *last = to < real(*last) ? int(larger(to, real(*first))) : *last;
}

// The columns of a patch's row `away_row` from its centre that can lie in the window, in [first, last) already.
DEVICE void window_columns(real away_row, real centre_col, real sine, real cosine, real half, int* first, int* last) {
    clip_columns(cosine * away_row, sine, half, centre_col, first, last);
    clip_columns(-sine * away_row, cosine, half, centre_col, first, last);
}

// One block per keypoint: n_hist x n_hist histograms of n_ori directions, over a window turned by the keypoint's
// orientation, of half side lambda_descr sigma (n_hist + 1) / n_hist. Each sample adds
//
//     |gradient| exp(-d^2 / (2 (lambda_descr sigma)^2))
//
// to the two nearest histograms in (turned) row, the two in column and the two nearest directions, in proportion to how
// near they are. Then values above `saturation` times the norm are cut, and the whole becomes bytes,
// min(floor(scaled_norm value / norm), 255). Sums are fixed-point, on a scale that the window's largest gradient gives,
// so they do not depend on the order in which threads come.
//
//     levels     flat                all octaves' levels; LANES samples of room at the end
//     octaves    (n_octaves, 4)      offset, rows, cols, pitch of each octave
//     positions  (n, 2)              row, column, input pixels
//     sigmas     (n,)                input pixels
//     orientations (n,)              radians
//     in_octave, in_scale (n,)       octave, and scale index within it
//     delta_min                      distance of the first octave's samples, input pixels
//     descriptors (n, n_hist n_hist n_ori)
KERNEL describe(const real* __restrict__ levels, const long long* __restrict__ octaves,
                const real* __restrict__ positions, const real* __restrict__ sigmas,
                const real* __restrict__ orientations, const int* __restrict__ in_octave,
                const int* __restrict__ in_scale, const int n, const real delta_min, const real lambda_descr,
                const int n_hist, const int n_ori, const real saturation, const real scaled_norm,
                unsigned char* __restrict__ descriptors) {
    // A sample lies between four histograms and two directions. What it adds to them lies together here, by the cell
    // between the histograms (n_hist + 1 of them each way, those on the rim with histograms missing) and the direction
    // (one after the n_ori, where they wrap round): eight neighbouring sums, first the four histograms of one
    // direction.
    __shared__ fixed sums[MAX_SUMS];
    __shared__ real values[MAX_VALUES], squares[MAX_VALUES];
    __shared__ fixed steepest;
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, n_threads = blockDim.x * blockDim.y;
    const int directions = n_ori + 1, across = n_hist + 1, n_sums = 4 * across * across * directions;
    const int n_values = n_hist * n_hist * n_ori;
    for (int i = blockIdx.x; i < n; i += gridDim.x) {
        const Octave octave = octave_of(octaves, in_octave[i]);
        const real* level = levels + octave.offset + in_scale[i] * octave.plane();
        const real delta = delta_min * real(1LL << in_octave[i]);
        const real centre_row = positions[2 * i] / delta, centre_col = positions[2 * i + 1] / delta;
        const real sigma = sigmas[i] / delta, orientation = orientations[i];
        const real half = lambda_descr * (1 + real(1) / real(n_hist)) * sigma, reach = root(real(2)) * half;
        const int row_0 = int(larger(real(0), centre_row - reach + real(0.5)));
        const int col_0 = int(larger(real(0), centre_col - reach + real(0.5)));
        const int row_1 = int(smaller(centre_row + reach + real(0.5), real(octave.rows - 1)));
        const int col_1 = int(smaller(centre_col + reach + real(0.5), real(octave.cols - 1)));
        real sine, cosine;
        sine_cosine(orientation, &sine, &cosine);

        for (int sum = thread; sum < n_sums; sum += n_threads) sums[sum] = 0;
        if (thread == 0) steepest = 0;
        __syncthreads();

        real largest_square = 0;
        for (int row = row_0 + threadIdx.y; row < row_1; row += blockDim.y) {
            int first = col_0, last = col_1;
            window_columns(real(row) - centre_row, centre_col, sine, cosine, half, &first, &last);
            largest_square = largest_gradient(level, octave, row, first, last, largest_square);
        }
        atomicMax_block(&steepest, bits_of(root(largest_square)));
        __syncthreads();

        const real largest = from_bits(steepest);
        const real spread = lambda_descr * sigma, spacing = 2 * spread / real(n_hist);
        if (largest > 0) {
            // a convex region of area A and perimeter P holds at most A + P / 2 + 1 samples; a bin's is a square
            const real side = 2 * spacing + 1;
            const real scale = scale_of(fixed_exponent(side * side, largest));
            const real falloff = -1 / (2 * spread * spread), per_direction = real(n_ori) / TWO_PI;
            const real per_cell = 1 / spacing, first_cell = real(n_hist + 1) / 2;
            for (int row = row_0 + threadIdx.y; row < row_1; row += blockDim.y) {
                const real away_row = real(row) - centre_row;
                int first = col_0, last = col_1;
                window_columns(away_row, centre_col, sine, cosine, half, &first, &last);
                for (int col = first + threadIdx.x * LANES; col < last; col += blockDim.x * LANES) {
                    int cell[LANES];
                    real scaled[LANES], row_part[LANES], col_part[LANES], direction_part[LANES];
                    real by_row[LANES], by_col[LANES];
                    gradients_at(level, octave, row, col, by_row, by_col);
                    VECTORIZE
                    for (int lane = 0; lane < LANES; ++lane) {
                        const real away_col = real(col + lane) - centre_col;
                        const real turned_row = cosine * away_row + sine * away_col;
                        const real turned_col = cosine * away_col - sine * away_row;
                        const bool inside = larger(magnitude_of(turned_row), magnitude_of(turned_col)) < half;
                        const real square = turned_row * turned_row + turned_col * turned_col;
                        const real weight = root(by_row[lane] * by_row[lane] + by_col[lane] * by_col[lane]) *
                                            exponential(square * falloff);
                        const real row_place = turned_row * per_cell + first_cell;
                        const real col_place = turned_col * per_cell + first_cell;
                        real direction = (arctangent(by_col[lane], by_row[lane]) - orientation) * per_direction;
                        direction = direction < 0 ? direction + real(n_ori) : direction;
                        direction = direction < 0 ? direction + real(n_ori) : direction;
                        direction = direction >= real(n_ori) ? direction - real(n_ori) : direction;
                        const int row_cell = smaller(int(row_place), n_hist);
                        const int col_cell = smaller(int(col_place), n_hist);
                        const int direction_cell = smaller(int(direction), n_ori - 1);
                        row_part[lane] = row_place - real(row_cell);
                        col_part[lane] = col_place - real(col_cell);
                        direction_part[lane] = direction - real(direction_cell);
                        cell[lane] = inside ? 4 * ((row_cell * across + col_cell) * directions + direction_cell) : -1;
                        scaled[lane] = weight * scale;
                    }
                    for (int lane = 0; lane < smaller(LANES, last - col); ++lane) {
                        if (cell[lane] < 0) continue;
                        const real lower = scaled[lane] * row_part[lane], upper = scaled[lane] - lower;
                        const real right = col_part[lane], left = 1 - right;
                        const real after = direction_part[lane], before = 1 - after;
                        VECTORIZE
                        for (int j = 0; j < 8; ++j) {
                            const real part =
                                (j & 2 ? lower : upper) * (j & 1 ? right : left) * (j & 4 ? after : before);
                            add_to(sums + cell[lane] + j, to_fixed(part));
                        }
                    }
                }
            }
        }
        __syncthreads();

        for (int v = thread; v < n_values; v += n_threads) {
            const int direction = v % n_ori, row = v / n_ori / n_hist, col = v / n_ori % n_hist;
            fixed sum = 0;
            for (int corner = 0; corner < 4; ++corner) {  // where this histogram is that corner of the cell
                const int cell = (row + 1 - corner / 2) * across + col + 1 - corner % 2;
                sum += sums[4 * (cell * directions + direction) + corner];
                if (direction == 0) sum += sums[4 * (cell * directions + n_ori) + corner];
            }
            values[v] = real(sum);
        }
        real norm = 0;
        for (int pass = 0; pass < 2; ++pass) {  // before and after saturation
            const real limit = pass == 0 ? scale_of(Bits<real>::sum_bits + 3) : saturation * norm;  // none at first
            VECTORIZE
            for (int v = thread; v < n_values; v += n_threads) {
                values[v] = smaller(values[v], limit);
                squares[v] = values[v] * values[v];
            }
            __syncthreads();
            for (int rest = n_values; rest > 1;) {  // one tree, whatever the number of threads
                const int kept = (rest + 1) / 2;
                VECTORIZE
                for (int v = thread; v < rest - kept; v += n_threads) squares[v] += squares[v + kept];
                __syncthreads();
                rest = kept;
            }
            norm = root(squares[0]);
            __syncthreads();
        }
        VECTORIZE
        for (int v = thread; v < n_values; v += n_threads) {
            const real value = scaled_norm * values[v] / (norm > 0 ? norm : real(1));
            descriptors[(long long)i * n_values + v] = (unsigned char)smaller(value, real(255));
        }
        __syncthreads();
    }
}

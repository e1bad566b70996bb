// Descriptors of the keypoints (Otero & Delbracio 2014, Alg. 12; Lowe 2004, section 6).
#include "common.cuh"

// The square window of a descriptor, turned by the keypoint's orientation; lengths in samples of the octave.
struct Window {
    real centre_row, centre_col, half, sine, cosine, per_sine, per_cosine;

    // Shrinks [first, last), columns of a row, to those that can lie in the window, or little more.
    DEVICE_MEMBER void clip(real row, int* first, int* last) const {
        clip_to(cosine * (row - centre_row) * per_sine, half * per_sine, first, last);
        clip_to(-sine * (row - centre_row) * per_cosine, half * per_cosine, first, last);
    }

 private:
    // To columns at most `away` from centre_col - shift; 0: no limit, the side is all but parallel to the row.
    DEVICE_MEMBER void clip_to(real shift, real away, int* first, int* last) const {
        if (away == 0) return;
        const real middle = centre_col - shift, reach = magnitude_of(away);
        const real from = floor_of(middle - reach), to = floor_of(middle + reach) + 2;
        *first = from > real(*first) ? int(smaller(from, real(*last))) : *first;
        *last = to < real(*last) ? int(larger(to, real(*first))) : *last;
    }
};

DEVICE Window window_of(real centre_row, real centre_col, real half, real orientation) {
    real sine, cosine;
    sine_cosine(orientation, &sine, &cosine);
    const real least = real(1e-3);
    const real per_sine = magnitude_of(sine) < least ? real(0) : 1 / sine;
    const real per_cosine = magnitude_of(cosine) < least ? real(0) : 1 / cosine;
    return {centre_row, centre_col, half, sine, cosine, per_sine, per_cosine};
}

// The orders of a descriptor's values: histograms by (turned) row, then column, where a row lies along the keypoint's
// orientation; or as Lowe, OpenCV and COLMAP have them, by y, then x, where x lies along it; or so with each
// histogram's directions the other way round, from the first.
#define LAYOUT_SCIKIT_IMAGE 0
#define LAYOUT_UBC 1
#define LAYOUT_VLFEAT 2

// One block per keypoint: n_hist x n_hist histograms of n_ori directions, over a window turned by the keypoint's
// orientation, of half side lambda_descr sigma (n_hist + 1) / n_hist. Each sample adds
//
//     |gradient| exp(-d^2 / (2 (lambda_descr sigma)^2))
//
// to the two nearest histograms in (turned) row, the two in column and the two nearest directions, in proportion to how
// near they are. Then values above `saturation` times the norm are cut, and the whole becomes bytes,
//
//     min(floor(scaled_norm value / norm), 255),      or, rooted (RootSIFT, Arandjelovic & Zisserman 2012),
//     min(floor(scaled_norm sqrt(value / sum of the values) + 1/2), 255).
//
// Sums are fixed-point, on a scale that the window's largest gradient gives, so they do not depend on the order in
// which threads come.
//
//     levels     flat                all octaves' levels, images stride samples apart; LANES samples of room at both
//     ends octaves    (n_octaves, 8)      see common.cuh features   (images, capacity)  for each, which candidate it is
//     of length     (images,)           number of features orientations (images, capacity)    the features', radians
//     positions  (images, capacity, 2)   the candidates' row, column, input pixels
//     sigmas     (images, capacity)  input pixels
//     in_octave, in_scale (images, capacity)   octave, and scale index within it
//     delta_min                      distance of the first octave's samples, input pixels
//     rooted                         0 or 1
//     layout                         order of a descriptor's values: one of the three above
//     descriptors (images, capacity, n_hist n_hist n_ori)
KERNEL describe(const real* __restrict__ levels, const long long stride, const long long* __restrict__ octaves,
                const int* __restrict__ features, const int* __restrict__ length, const int capacity,
                const real* __restrict__ orientations, const real* __restrict__ positions,
                const real* __restrict__ sigmas, const int* __restrict__ in_octave, const int* __restrict__ in_scale,
                const real delta_min, const real lambda_descr, const int n_hist, const int n_ori, const real saturation,
                const real scaled_norm, const int rooted, const int layout, unsigned char* __restrict__ descriptors) {
    // A sample lies between four histograms and two directions. What it adds to them lies together here, by the cell
    // between the histograms (n_hist + 1 of them each way, those on the rim with histograms missing) and the direction
    // (one after the n_ori, where they wrap round): eight neighbouring sums, first the four histograms of one
    // direction.
    __shared__ fixed sums[MAX_SUMS];
    __shared__ real values[MAX_VALUES], terms[MAX_VALUES];
    __shared__ fixed steepest;
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, n_threads = blockDim.x * blockDim.y;
    const int directions = n_ori + 1, across = n_hist + 1, per_col = 4 * directions, per_row = across * per_col;
    const int n_sums = across * per_row;
    const int n_values = n_hist * n_hist * n_ori;
    for (int feature = blockIdx.x; feature < length[blockIdx.z]; feature += gridDim.x) {
        const long long at = (long long)blockIdx.z * capacity + feature;
        const long long i = (long long)blockIdx.z * capacity + features[at];
        const Octave octave = octave_of(octaves, in_octave[i]);
        const real* level = levels + blockIdx.z * stride + octave.offset + in_scale[i] * octave.plane;
        const real delta = delta_min * real(1LL << in_octave[i]);
        const real centre_row = positions[2 * i] / delta, centre_col = positions[2 * i + 1] / delta;
        const real sigma = sigmas[i] / delta, orientation = orientations[at];
        const real half = lambda_descr * (1 + real(1) / real(n_hist)) * sigma, reach = root(real(2)) * half;
        const int row_0 = larger(0, whole_within(centre_row - reach + real(0.5), octave.rows));
        const int col_0 = larger(0, whole_within(centre_col - reach + real(0.5), octave.cols));
        const int row_1 = whole_within(centre_row + reach + real(0.5), octave.rows - 1);
        const int col_1 = whole_within(centre_col + reach + real(0.5), octave.cols - 1);
        const Window window = window_of(centre_row, centre_col, half, orientation);

        for (int sum = thread; sum < n_sums; sum += n_threads) sums[sum] = 0;
        if (thread == 0) steepest = 0;
        __syncthreads();

        real best[LANES] = {};
        for (int row = row_0 + threadIdx.y; row < row_1; row += blockDim.y) {
            int first = col_0, last = col_1;
            window.clip(real(row), &first, &last);
            largest_gradients(level, octave, row, first, last, best);
        }
        real largest_square = 0;
        for (int lane = 0; lane < LANES; ++lane) largest_square = larger(largest_square, best[lane]);
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
                window.clip(real(row), &first, &last);
                for (int col = first + threadIdx.x * STRIP; col < last; col += blockDim.x * STRIP) {
                    const int count = smaller(STRIP, last - col);
                    int cell[STRIP];
                    real upper[STRIP], lower[STRIP], left[STRIP], right[STRIP], before[STRIP], after[STRIP];
                    real by_row[STRIP], by_col[STRIP];
                    gradients_at(level, octave, row, col, count, by_row, by_col);
                    VECTORIZE
                    for (int lane = 0; lane < whole_vectors(count); ++lane) {
                        const real away_col = real(col + lane) - centre_col;
                        const real turned_row = window.cosine * away_row + window.sine * away_col;
                        const real turned_col = window.cosine * away_col - window.sine * away_row;
                        const bool inside = larger(magnitude_of(turned_row), magnitude_of(turned_col)) < half;
                        const real square = turned_row * turned_row + turned_col * turned_col;
                        const real weight = root(by_row[lane] * by_row[lane] + by_col[lane] * by_col[lane]) *
                                            exponential(square * falloff);
                        const real row_place = turned_row * per_cell + first_cell;
                        const real col_place = turned_col * per_cell + first_cell;
                        real direction = (arctangent(by_col[lane], by_row[lane]) - orientation) * per_direction;
                        direction = direction < 0 ? direction + real(n_ori) : direction;
                        const int row_cell = smaller(int(row_place), n_hist);
                        const int col_cell = smaller(int(col_place), n_hist);
                        const int direction_cell = smaller(int(direction), n_ori - 1);
                        const real scaled = weight * scale;
                        lower[lane] = scaled * (row_place - real(row_cell));
                        upper[lane] = scaled - lower[lane];
                        right[lane] = col_place - real(col_cell);
                        left[lane] = 1 - right[lane];
                        after[lane] = direction - real(direction_cell);
                        before[lane] = 1 - after[lane];
                        const int first_sum = row_cell * per_row + col_cell * per_col + 4 * direction_cell;
                        cell[lane] = inside ? first_sum : -1;
                    }
                    for (int lane = 0; lane < count; ++lane) {
                        if (cell[lane] < 0) continue;
                        const real row_0_part = upper[lane], row_1_part = lower[lane];
                        const real col_0_part = left[lane], col_1_part = right[lane];
                        const real direction_0_part = before[lane], direction_1_part = after[lane];
                        VECTORIZE
                        for (int j = 0; j < 8; ++j) {
                            const real part = (j & 2 ? row_1_part : row_0_part) * (j & 1 ? col_1_part : col_0_part) *
                                              (j & 4 ? direction_1_part : direction_0_part);
                            add_to(sums + cell[lane] + j, to_fixed(part));
                        }
                    }
                }
            }
        }
        __syncthreads();

        for (int cell = thread; cell < across * across; cell += n_threads)  // the directions wrap round
            for (int corner = 0; corner < 4; ++corner)
                sums[cell * per_col + corner] += sums[cell * per_col + 4 * n_ori + corner];
        __syncthreads();
        for (int bin = threadIdx.y; bin < n_hist * n_hist; bin += blockDim.y) {
            // a histogram is a corner of each of four cells
            const fixed* above = sums + bin / n_hist * per_row + bin % n_hist * per_col;
            const fixed* below = above + per_row;
            VECTORIZE
            for (int direction = threadIdx.x; direction < n_ori; direction += blockDim.x) {
                const int at = 4 * direction;
                const fixed sum = above[at + 3] + above[per_col + at + 2] + below[at + 1] + below[per_col + at];
                values[bin * n_ori + direction] = real(sum);
            }
        }
        __syncthreads();
        real norm = 0;
        for (int pass = 0; pass < 2; ++pass) {  // before and after saturation
            const real limit = pass == 0 ? scale_of(Bits<real>::sum_bits + 3) : saturation * norm;  // none at first
            const bool is_sum = pass == 1 && rooted;
            VECTORIZE
            for (int v = thread; v < n_values; v += n_threads) {
                values[v] = smaller(values[v], limit);
                terms[v] = is_sum ? values[v] : values[v] * values[v];
            }
            __syncthreads();
            for (int rest = n_values; rest > 1;) {  // one tree, whatever the number of threads
                const int kept = (rest + 1) / 2;
                VECTORIZE
                for (int v = thread; v < rest - kept; v += n_threads) terms[v] += terms[v + kept];
                __syncthreads();
                rest = kept;
            }
            norm = is_sum ? terms[0] : root(terms[0]);
            __syncthreads();
        }
        VECTORIZE
        for (int v = thread; v < n_values; v += n_threads) {
            const real one = norm > 0 ? norm : real(1);
            const real value = rooted ? scaled_norm * root(values[v] / one) + real(0.5) : scaled_norm * values[v] / one;
            values[v] = smaller(value, real(255));
        }
        __syncthreads();
        for (int bin = threadIdx.y; bin < n_hist * n_hist; bin += blockDim.y) {
            const int across_first = (n_hist - 1 - bin % n_hist) * n_hist + bin / n_hist;
            const int to = layout == LAYOUT_SCIKIT_IMAGE ? bin : across_first;
            unsigned char* histogram = descriptors + at * n_values + to * n_ori;
            VECTORIZE
            for (int direction = threadIdx.x; direction < n_ori; direction += blockDim.x) {
                const int from = layout == LAYOUT_VLFEAT && direction > 0 ? n_ori - direction : direction;
                histogram[direction] = (unsigned char)values[bin * n_ori + from];
            }
        }
        __syncthreads();
    }
}

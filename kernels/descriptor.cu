// Descriptors of the keypoints (Otero & Delbracio 2014, Alg. 12; Lowe 2004, section 6).
#include "window.cuh"
#include "work_list.cuh"

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

#define SUM_LANES 16  // in which the sum over a descriptor's values is taken, whatever the number of threads

// A sample lies between four histograms and two directions: in a cell. There are n_hist + 1 cells each way, those on
// the rim with histograms missing, and n_ori + 1 directions, the last one to wrap round. The place of one of the eight
// sums that a sample adds to, first those of the four histograms at one direction, then at the next: on a GPU sums of
// neighbouring cells lie in different banks, on a host those of a sample are a vector.
DEVICE int place_of(int cell, int part, int n_cells) {
    return LANES > 1 ? 8 * cell + part : (part & 3) * n_cells + cell + (part >> 2);
}

// The place of one of a cell's four sums when directions are folded.
DEVICE int folded_place(int cell, int corner, int n_cells) {
    return LANES > 1 ? 4 * cell + corner : corner * n_cells + cell;
}

// A host may have vectors to do what `Gathered::add` does; this is for all others.
template <typename Sum>
DEVICE bool add_vectors(int, const int*, const real (*)[STRIP], const real*, const real*, Sum*) {
    return false;
}

// What a thread's last samples give, held as long as they are of one cell: fewer additions to sums that other threads
// add to as well.
template <typename Sum>
struct Gathered {
    Sum* sums;
    int n_cells, cell;
    Sum parts[8] = {};

    DEVICE_MEMBER Gathered(Sum* sums, int n_cells) : sums(sums), n_cells(n_cells), cell(-1) {}

    // Adds `count` samples, unless their cell is negative: the products of four corners and two directions.
    DEVICE_MEMBER void add(int count, const int* cells, const real (*corners)[STRIP], const real* before,
                           const real* after) {
        if (add_vectors(count, cells, corners, before, after, sums)) return;
        for (int i = 0; i < count; ++i) {
            const int lane = STRIP == 1 ? 0 : i;  // said so, a GPU keeps all in registers
            if (cells[lane] < 0) continue;
            if (cells[lane] != cell) {
                flush();
                cell = cells[lane];
                UNROLL
                for (int part = 0; part < 8; ++part) parts[part] = 0;
            }
            UNROLL
            for (int part = 0; part < 8; ++part)
                parts[part] += to_fixed(corners[part & 3][lane] * (part < 4 ? before : after)[lane]);
        }
    }

    // Adds what is held.
    DEVICE_MEMBER void flush() {
        if (cell < 0) return;
        UNROLL
        for (int part = 0; part < 8; ++part) add_to(sums + place_of(cell, part, n_cells), parts[part]);
        cell = -1;
    }
};

// Adds up the two parts of each sum, the one from the direction before it too, as a GPU has done already; and where the
// directions wrap round, on both. Then the four sums of a cell lie at `folded_place`.
template <typename Sum>
DEVICE void fold_directions(Sum* sums, int n_cells, int directions, int thread, int n_threads) {
    if (LANES > 1) {
        for (int cell = 1; cell < n_cells; ++cell) {
            VECTORIZE
            for (int corner = 0; corner < 4; ++corner)
                sums[4 * cell + corner] = sums[8 * cell + corner] + sums[8 * cell - 4 + corner];
        }
    }
    for (int group = thread; group < n_cells / directions; group += n_threads) {
        const int first = group * directions, last = first + directions - 1;
        UNROLL
        for (int corner = 0; corner < 4; ++corner)
            sums[folded_place(first, corner, n_cells)] += sums[folded_place(last, corner, n_cells)];
    }
}

// The sum of SUM_LANES values, by one tree.
DEVICE real sum_of_lanes(const real* lanes) {
    static_assert(SUM_LANES == 16);
    real sums[8];
    UNROLL
    for (int i = 0; i < 8; ++i) sums[i] = lanes[i] + lanes[i + 8];
    UNROLL
    for (int i = 0; i < 4; ++i) sums[i] += sums[i + 4];
    return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

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
// Sums are fixed-point, on a scale that a bound of the window's gradients gives, so they do not depend on the order in
// which threads come.
//
//     levels     flat                all octaves' levels, images stride samples apart; LANES samples of room at
//                                    both ends
//     octaves    (n_octaves, 8)      see octave.cuh
//     features   (images, capacity)  for each, which candidate it is of
//     length     (images,)           number of features
//     counter    (images,)           of those taken; 0 before and afterwards
//     orientations (images, capacity)    the features', radians
//     positions  (images, capacity, 2)   the candidates' row, column, input pixels
//     sigmas     (images, capacity)  input pixels
//     in_octave, in_scale (images, capacity)   octave, and scale index within it
//     delta_min                      distance of the first octave's samples, input pixels
//     rooted                         0 or 1
//     layout                         order of a descriptor's values: one of the three above
//     descriptors (images, capacity, n_hist n_hist n_ori)
KERNEL describe(const real* __restrict__ levels, const long long stride, const long long* __restrict__ octaves,
                const int* __restrict__ features, const int* __restrict__ length, int* __restrict__ counter,
                const int capacity, const real* __restrict__ orientations, const real* __restrict__ positions,
                const real* __restrict__ sigmas, const int* __restrict__ in_octave, const int* __restrict__ in_scale,
                const real delta_min, const real lambda_descr, const int n_hist, const int n_ori, const real saturation,
                const real scaled_norm, const int rooted, const int layout, unsigned char* __restrict__ descriptors) {
    __shared__ fixed sums[MAX_SUMS];
    __shared__ real values[MAX_VALUES], lane_sums[SUM_LANES];
    __shared__ real row_weights[PATCH], col_weights[PATCH];
    __shared__ unsigned char bytes[MAX_VALUES];
    __shared__ fixed steepest;
    __shared__ int taken;
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, n_threads = blockDim.x * blockDim.y;
    const int directions = n_ori + 1, across = n_hist + 1, n_cells = across * across * directions;
    const int n_sums = (LANES > 1 ? 8 : 4) * n_cells;
    const int n_values = n_hist * n_hist * n_ori;
    while (true) {
        const int feature = take(&counter[blockIdx.z], length[blockIdx.z], &taken);
        if (feature >= length[blockIdx.z]) return;
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

        const real spread = lambda_descr * sigma, spacing = 2 * spread / real(n_hist);
        const real falloff = -1 / (2 * spread * spread), per_direction = real(n_ori) / TWO_PI;
        const real per_cell = 1 / spacing, first_cell = real(n_hist + 1) / 2;
        // the shares of all samples in a histogram add up to no more: a convex region of area A and perimeter P holds
        // at most A + P / 2 + 1 of them, and a share falls from 1 to 0 over such regions, in a square of side 2 spacing
        const real all_shares = spacing * spacing + 4 * spacing + 1;

        real bound = bound_of_gradients(row_0, row_1, &steepest, [&](int row, real* best) {
            int first = col_0, last = col_1;
            window.clip(real(row), &first, &last);
            largest_gradients(level, octave, row, first, last, best);
        });
        for (bool fits = false; !fits;) {
            const real scale = scale_of(fixed_exponent(all_shares, bound));
            for (int sum = thread; sum < n_sums; sum += n_threads) sums[sum] = 0;
            fixed seen = 0;
            for_each_patch(row_0, row_1, col_0, col_1, [&](int patch_row, int patch_col, int end_row, int end_col) {
                gaussian_weights(patch_row, end_row, centre_row, falloff, thread, n_threads, row_weights);
                gaussian_weights(patch_col, end_col, centre_col, falloff, thread, n_threads, col_weights);
                __syncthreads();
                auto clip = [&](int row, int* begin, int* end) { window.clip(real(row), begin, end); };
                Walk walk(patch_row, end_row, patch_col, end_col);
                Gathered<fixed> gathered(sums, n_cells);
                while (true) {
                    int count = 0;
                    real by_row[STRIP], by_col[STRIP], turned_row[STRIP], turned_col[STRIP], weight[STRIP];
                    while (count <= STRIP - SPAN && walk.next(clip)) {
                        const real away_row = real(walk.row) - centre_row;
                        const real row_weight = row_weights[walk.row - patch_row] * scale;
                        const real* weights = col_weights + (walk.col - patch_col);
                        prefetch_row(level, octave, walk.row + 8, walk.col, walk.count);
                        gradients_at(level, octave, walk.row, walk.col, walk.count, by_row + count, by_col + count);
                        VECTORIZE
                        for (int lane = 0; lane < whole_vectors(walk.count); ++lane) {
                            const real away_col = real(walk.col + lane) - centre_col;
                            turned_row[count + lane] = window.cosine * away_row + window.sine * away_col;
                            turned_col[count + lane] = window.cosine * away_col - window.sine * away_row;
                            weight[count + lane] = row_weight * weights[lane];
                        }
                        count += walk.count;
                    }
                    if (count == 0) break;
                    int cell[STRIP];
                    real corners[4][STRIP], before[STRIP], after[STRIP];
                    VECTORIZE
                    for (int i = 0; i < whole_vectors(count); ++i) {
                        const bool inside =
                            (magnitude_of(turned_row[i]) < half) & (magnitude_of(turned_col[i]) < half) & (i < count);
                        const real steep = root(by_row[i] * by_row[i] + by_col[i] * by_col[i]);
                        seen = larger(seen, inside ? bits_of(steep) : fixed(0));
                        const real weighted = smaller(steep, bound) * weight[i];
                        const real row_place = turned_row[i] * per_cell + first_cell;
                        const real col_place = turned_col[i] * per_cell + first_cell;
                        real direction = (arctangent(by_col[i], by_row[i]) - orientation) * per_direction;
                        direction = direction < 0 ? direction + real(n_ori) : direction;
                        const real row_cell = smaller(whole_part(row_place), real(n_hist));
                        const real col_cell = smaller(whole_part(col_place), real(n_hist));
                        const real direction_cell = smaller(whole_part(direction), real(n_ori - 1));
                        const real lower = weighted * (row_place - row_cell), upper = weighted - lower;
                        const real right = col_place - col_cell, left = 1 - right;
                        corners[0][i] = upper * left;
                        corners[1][i] = upper * right;
                        corners[2][i] = lower * left;
                        corners[3][i] = lower * right;
                        after[i] = direction - direction_cell;
                        before[i] = 1 - after[i];
                        const real number = (row_cell * real(across) + col_cell) * real(directions) + direction_cell;
                        cell[i] = inside ? int(number) : -1;
                    }
                    gathered.add(count, cell, corners, before, after);
                }
                gathered.flush();
                __syncthreads();
            });
            fits = !exceeded(seen, &steepest, &bound);
        }

        fold_directions(sums, n_cells, directions, thread, n_threads);
        __syncthreads();
        for (int bin = threadIdx.y; bin < n_hist * n_hist; bin += blockDim.y) {
            // a histogram is a corner of each of four cells
            const int upper_left = (bin / n_hist * across + bin % n_hist) * directions;
            const int lower_left = upper_left + across * directions;
            VECTORIZE
            for (int direction = threadIdx.x; direction < n_ori; direction += blockDim.x) {
                const int above = upper_left + direction, below = lower_left + direction;
                values[bin * n_ori + direction] =
                    real(sums[folded_place(above, 3, n_cells)] + sums[folded_place(above + directions, 2, n_cells)] +
                         sums[folded_place(below, 1, n_cells)] + sums[folded_place(below + directions, 0, n_cells)]);
            }
        }
        __syncthreads();
        real norm = 0;
        for (int pass = 0; pass < 2; ++pass) {  // before and after saturation
            const real limit = pass == 0 ? scale_of(Bits<real>::sum_bits + 3) : saturation * norm;  // none at first
            const bool is_sum = pass == 1 && rooted;
            VECTORIZE
            for (int lane = thread; lane < SUM_LANES; lane += n_threads) lane_sums[lane] = 0;
            for (int first = 0; first < n_values; first += SUM_LANES) {
                VECTORIZE
                for (int lane = thread; lane < smaller(SUM_LANES, n_values - first); lane += n_threads) {
                    const real value = smaller(values[first + lane], limit);
                    values[first + lane] = value;
                    lane_sums[lane] += is_sum ? value : value * value;
                }
            }
            __syncthreads();
            norm = sum_of_lanes(lane_sums);
            if (!is_sum) norm = root(norm);
            __syncthreads();
        }
        VECTORIZE
        for (int v = thread; v < n_values; v += n_threads) {
            const real one = norm > 0 ? norm : real(1);
            const real value = rooted ? scaled_norm * root(values[v] / one) + real(0.5) : scaled_norm * values[v] / one;
            bytes[v] = (unsigned char)smaller(value, real(255));
        }
        __syncthreads();
        unsigned char* out = descriptors + at * n_values;
        if (layout == LAYOUT_SCIKIT_IMAGE) {
            VECTORIZE
            for (int v = thread; v < n_values; v += n_threads) out[v] = bytes[v];
        } else {
            for (int v = thread; v < n_values; v += n_threads) {
                const int bin = v / n_ori, direction = v % n_ori;
                const int to = (n_hist - 1 - bin % n_hist) * n_hist + bin / n_hist;
                const int opposite = layout == LAYOUT_VLFEAT && direction > 0 ? n_ori - direction : direction;
                out[to * n_ori + opposite] = bytes[v];
            }
        }
        __syncthreads();
    }
}

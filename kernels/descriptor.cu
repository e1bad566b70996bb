// Descriptors of the keypoints (Otero & Delbracio 2014, Alg. 12; Lowe 2004, section 6).
//
// A descriptor is n_hist x n_hist histograms of n_ori gradient directions over a square window that is turned by the
// keypoint's orientation; it tells keypoints apart whatever the image's rotation, scale and brightness. Each sample
// adds
//
//     |gradient| exp(-d^2 / (2 (lambda_descr sigma)^2))
//
// to the two nearest histograms by (turned) row, the two by column and the two nearest directions, in proportion to how
// near they are. Then values above `saturation` times the norm are cut, and the whole becomes bytes,
//
//     min(floor(scaled_norm value / norm), 255),      or, rooted (RootSIFT, Arandjelovic & Zisserman 2012),
//     min(floor(scaled_norm sqrt(value / sum of the values) + 1/2), 255).
//
// Sums are fixed-point, so they do not depend on the order in which threads add to them.
#include "turned_window.cuh"
#include "held_sums.cuh"
#include "work_list.cuh"

// The histograms of a window while samples are added (Alg. 12, lines 6 to 13); `accumulate` uses it.
struct Histograms {
    const Window& window;
    const Grid& grid;
    CellSums& cells;
    real orientation;
    PerSample<real> turned_row, turned_col;

    DEVICE_MEMBER Histograms(const Window& window, const Grid& grid, real orientation, CellSums& cells)
        : window(window), grid(grid), cells(cells), orientation(orientation) {}

    DEVICE_MEMBER void clear() { cells.clear(); }

    DEVICE_MEMBER void clip(int row, int* first, int* last) const { window.clip(real(row), first, last); }

    DEVICE_MEMBER void place(int i, real row, real col) {
        turned_row[i] = window.cosine * row + window.sine * col;
        turned_col[i] = window.cosine * col - window.sine * row;
    }

    DEVICE_MEMBER void add(const Samples& samples, real bound, fixed* steepest) {
        const real per_direction = real(grid.n_ori) / TWO_PI, per_cell = 1 / grid.spacing;
        const real first_cell = real(grid.n_hist + 1) / 2;
        CellSamples parts;
        fixed seen = *steepest;
        for_each_sample(samples.count, [&](int i) INLINED {
            const real by_row = samples.by_row[i], by_col = samples.by_col[i];
            const bool inside = (magnitude_of(turned_row[i]) < grid.half) & (magnitude_of(turned_col[i]) < grid.half) &
                                (i < samples.count);
            const real steep = root(by_row * by_row + by_col * by_col);
            seen = larger(seen, inside ? bits_of(steep) : fixed(0));
            const real weighted = smaller(steep, bound) * samples.weight[i];
            const real row_place = turned_row[i] * per_cell + first_cell;
            const real col_place = turned_col[i] * per_cell + first_cell;
            real direction = (arctangent(by_col, by_row) - orientation) * per_direction;
            direction = direction < 0 ? direction + real(grid.n_ori) : direction;
            const real row_cell = smaller(whole_part(row_place), real(grid.n_hist));
            const real col_cell = smaller(whole_part(col_place), real(grid.n_hist));
            const real direction_cell = smaller(whole_part(direction), real(grid.n_ori - 1));
            const real lower = weighted * (row_place - row_cell), upper = weighted - lower;
            const real right = col_place - col_cell, left = 1 - right;
            parts.corners[0][i] = upper * left;
            parts.corners[1][i] = upper * right;
            parts.corners[2][i] = lower * left;
            parts.corners[3][i] = lower * right;
            parts.after[i] = direction - direction_cell;
            parts.before[i] = 1 - parts.after[i];
            const real number = (row_cell * real(grid.across) + col_cell) * real(grid.directions) + direction_cell;
            parts.cell[i] = inside ? int(number) : -1;
        });
        *steepest = seen;
        cells.add(samples.count, parts);
    }

    DEVICE_MEMBER void flush() { cells.flush(); }
};

// Gathers the n_hist x n_hist x n_ori values from the cells: a histogram is a corner of each of four cells.
DEVICE void gather_histograms(CellSums& cells, const Grid& grid, real* values) {
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, n_threads = blockDim.x * blockDim.y;
    cells.fold();
    for (int first = thread * grid.directions; first < grid.n_cells(); first += n_threads * grid.directions) {
        UNROLL
        for (int corner = 0; corner < 4; ++corner)  // the last direction is the first again
            cells.corner(first, corner) += cells.corner(first + grid.n_ori, corner);
    }
    __syncthreads();
    for (int bin = threadIdx.y; bin < grid.n_hist * grid.n_hist; bin += blockDim.y) {
        const int upper = (bin / grid.n_hist * grid.across + bin % grid.n_hist) * grid.directions;
        const int lower = upper + grid.across * grid.directions, next = grid.directions;
        VECTORIZE
        for (int d = threadIdx.x; d < grid.n_ori; d += blockDim.x)
            values[bin * grid.n_ori + d] = real(cells.corner(upper + d, 3) + cells.corner(upper + next + d, 2) +
                                                cells.corner(lower + d, 1) + cells.corner(lower + next + d, 0));
    }
    __syncthreads();
}

#define SUM_LANES 16  // partial sums of a descriptor's values, whatever the number of threads

// Cuts the values at `limit`; returns the sum of the values, or of their squares: SUM_LANES partial sums, added by one
// tree.
DEVICE real cut_and_sum(real* values, int n_values, real limit, bool squared, real* lane_sums) {
    static_assert(SUM_LANES == 16);
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, n_threads = blockDim.x * blockDim.y;
    VECTORIZE
    for (int lane = thread; lane < SUM_LANES; lane += n_threads) lane_sums[lane] = 0;
    for (int first = 0; first < n_values; first += SUM_LANES) {
        VECTORIZE
        for (int lane = thread; lane < smaller(SUM_LANES, n_values - first); lane += n_threads) {
            const real value = smaller(values[first + lane], limit);
            values[first + lane] = value;
            lane_sums[lane] += squared ? value * value : value;
        }
    }
    __syncthreads();
    real sums[8];
    UNROLL
    for (int i = 0; i < 8; ++i) sums[i] = lane_sums[i] + lane_sums[i + 8];
    UNROLL
    for (int i = 0; i < 4; ++i) sums[i] += sums[i + 4];
    __syncthreads();
    return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

// The values as bytes (Alg. 12, lines 15 to 17): cut at `saturation` times their norm, then scaled to `scaled_norm`.
DEVICE void quantize(real* values, int n_values, real saturation, real scaled_norm, bool rooted, real* lane_sums,
                     unsigned char* bytes) {
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, n_threads = blockDim.x * blockDim.y;
    const real no_limit = scale_of(Bits<real>::sum_bits + 3);
    const real norm = root(cut_and_sum(values, n_values, no_limit, true, lane_sums));
    const real sum = cut_and_sum(values, n_values, saturation * norm, !rooted, lane_sums);
    const real total = rooted ? sum : root(sum), divisor = total > 0 ? total : real(1);
    VECTORIZE
    for (int v = thread; v < n_values; v += n_threads) {
        const real value =
            rooted ? scaled_norm * root(values[v] / divisor) + real(0.5) : scaled_norm * values[v] / divisor;
        bytes[v] = (unsigned char)smaller(value, real(255));
    }
    __syncthreads();
}

// The orders of a descriptor's values. scikit-image: histograms by turned row, then turned column, where rows lie along
// the keypoint's orientation. UBC (Lowe, OpenCV, COLMAP): by turned y, then turned x, where x lies along it. VLFeat: as
// UBC, with the directions of each histogram in the opposite sense, from the same first one.
#define LAYOUT_SCIKIT_IMAGE 0
#define LAYOUT_UBC 1
#define LAYOUT_VLFEAT 2

// Copies a descriptor out in the order of `layout`.
DEVICE void write_descriptor(const unsigned char* bytes, int n_hist, int n_ori, int layout,
                             unsigned char* __restrict__ out) {
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, n_threads = blockDim.x * blockDim.y;
    const int n_values = n_hist * n_hist * n_ori;
    if (layout == LAYOUT_SCIKIT_IMAGE) {
        VECTORIZE
        for (int v = thread; v < n_values; v += n_threads) out[v] = bytes[v];
        return;
    }
    for (int v = thread; v < n_values; v += n_threads) {
        const int bin = v / n_ori, direction = v % n_ori;
        const int to = (n_hist - 1 - bin % n_hist) * n_hist + bin / n_hist;
        const int opposite = layout == LAYOUT_VLFEAT && direction > 0 ? n_ori - direction : direction;
        out[to * n_ori + opposite] = bytes[v];
    }
}

// Describes features. A block takes one feature after the other from the list.
//
//     levels     flat                all octaves' levels, images stride samples apart; readable one vector beyond both
//                                    ends
//     octaves    (n_octaves, 8)      see octave.cuh
//     features   (images, capacity)  index of each feature's candidate
//     length     (images,)           number of features
//     counter    (images,)           number of features taken by blocks; 0 before and afterwards
//     orientations (images, capacity)    of the features, radians
//     positions  (images, capacity, 2)   row and column of the candidates, input pixels
//     sigmas     (images, capacity)  input pixels
//     in_octave, in_scale (images, capacity)   octave, and scale index within it
//     delta_min                      sampling distance of the first octave, input pixels
//     rooted                         0 or 1
//     lambda_descr                   deviation of the Gaussian weight, sigmas
//     saturation                     largest value, of the norm
//     scaled_norm                    norm of the bytes
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
    __shared__ unsigned char bytes[MAX_VALUES];
    __shared__ WindowTables tables;
    __shared__ int taken;
    const long long first = (long long)blockIdx.z * capacity;
    while (true) {
        const int feature = take(&counter[blockIdx.z], length[blockIdx.z], &taken);
        if (feature >= length[blockIdx.z]) return;
        const long long at = first + feature, i = first + features[at];
        const Frame frame = frame_of(levels + blockIdx.z * stride, octaves, in_octave[i], in_scale[i],
                                     positions + 2 * i, sigmas[i], delta_min);
        const Grid grid(n_hist, n_ori, lambda_descr, frame.sigma);
        const Window window = window_of(frame, grid.half, orientations[at]);
        const Area area = area_of(frame, root(real(2)) * grid.half, 0);
        CellSums cells(sums, grid.n_cells());
        Histograms histograms(window, grid, orientations[at], cells);
        accumulate(frame, area, -1 / (2 * grid.spread * grid.spread), grid.all_shares(), tables, histograms);
        gather_histograms(cells, grid, values);
        quantize(values, grid.n_values(), saturation, scaled_norm, rooted, lane_sums, bytes);
        write_descriptor(bytes, n_hist, n_ori, layout, descriptors + at * grid.n_values());
        __syncthreads();
    }
}

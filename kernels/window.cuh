// The window around a keypoint: where it lies, the gradients in it, and sums over its samples; for orientation.cu and
// descriptor.cu.
#pragma once
#include "octave.cuh"

// A keypoint in the level of its octave and scale. Its centre and sigma are in samples of the octave.
struct Frame {
    Octave octave;
    const real* level;
    real row, col, sigma;
};

// position: row and column, input pixels. sigma: input pixels. delta_min: sampling distance of the first octave, input
// pixels.
DEVICE Frame frame_of(const real* __restrict__ levels, const long long* __restrict__ octaves, int o, int s,
                      const real* __restrict__ position, real sigma, real delta_min) {
    const Octave octave = octave_of(octaves, o);
    const real delta = delta_min * real(1LL << o);
    return {octave, levels + octave.offset + s * octave.plane, position[0] / delta, position[1] / delta, sigma / delta};
}

// The samples in rows [row_0, row_1) and columns [col_0, col_1) of a level.
struct Area {
    int row_0, row_1, col_0, col_1;
};

// The samples of the level at most `rows` samples from the keypoint by row and `cols` by column, rounded as IPOL's code
// and scikit-image round. `includes_end` is 1 if the last row and column belong to the area (Alg. 11), 0 if not (Alg.
// 12).
DEVICE Area area_of(const Frame& frame, real rows, real cols, int includes_end) {
    const real half = real(0.5);
    return {larger(0, whole_within(frame.row - rows + half, frame.octave.rows)),
            whole_within(frame.row + rows + half, frame.octave.rows - 1) + includes_end,
            larger(0, whole_within(frame.col - cols + half, frame.octave.cols)),
            whole_within(frame.col + cols + half, frame.octave.cols - 1) + includes_end};
}

// The gradients of a row of a level: half the central difference; at the level's edges the one-sided difference
// (np.gradient).
struct Gradients {
    DEVICE_MEMBER Gradients(const Frame& frame, int row) : last_col(frame.octave.cols - 1) {
        const int up = larger(row - 1, 0), down = smaller(row + 1, frame.octave.rows - 1);
        row_step = down - up == 2 ? real(0.5) : real(1);
        here = frame.level + (long long)row * frame.octave.pitch;
        to_above = (up - row) * frame.octave.pitch;
        to_below = (down - row) * frame.octave.pitch;
    }

    DEVICE_MEMBER real by_row(int col) const { return (here[col + to_below] - here[col + to_above]) * row_step; }

    // By column, as if the row went on at its ends. Reads the samples beyond them, or a vector of them.
    DEVICE_MEMBER real by_col(int col) const { return (here[col + 1] - here[col - 1]) * real(0.5); }

    // Puts the differences at the row's ends right, among those of `count` neighbours, if any, from `col` on.
    DEVICE_MEMBER void mend_ends(int col, int count, real* by_col) const {
        if (count <= 0) return;
        if (col == 0) by_col[0] = here[smaller(1, last_col)] - here[0];
        if (col + count > last_col) by_col[count - 1] = here[last_col] - here[larger(last_col - 1, 0)];
    }

 private:
    const real* here;
    real row_step;
    int to_above, to_below, last_col;
};

// Asks for samples of a row that is needed soon.
DEVICE void prefetch_row(const Frame& frame, int row, int col, int count) {
    prefetch(frame.level + (long long)smaller(row, frame.octave.rows - 1) * frame.octave.pitch + col, count);
}

// Whether the steepest gradient that any thread has met exceeds `bound`; if so, `bound` becomes that gradient. Positive
// numbers compare as their bits do. `steepest` is in shared memory. The caller needs a barrier before the next call.
DEVICE bool exceeded(fixed seen, fixed* steepest, real* bound) {
    if (threadIdx.x == 0 && threadIdx.y == 0) *steepest = 0;
    __syncthreads();
    atomicMax_block(steepest, seen);
    __syncthreads();
    const real largest = from_bits(*steepest);
    if (!(largest > *bound)) return false;
    *bound = largest;
    return true;
}

// Sums in fixed point need a bound of the gradients, or they could overflow. To read every gradient first would take a
// pass of its own. Levels are smooth, so BOUND_MARGIN times the steepest gradient in every BOUND_STEP-th row bounds all
// of them nearly always. `accumulate` notices when it does not, and starts again with a larger bound.
#define BOUND_STEP 4
#define BOUND_MARGIN 2

// A bound of the gradients in an area, whose rows `clip` shortens; the same in all threads.
template <typename Clip>
DEVICE real bound_of_gradients(const Frame& frame, const Area& area, const Clip& clip, fixed* steepest) {
    PerLane<real> best = {};
    for (int row = area.row_0 + threadIdx.y * BOUND_STEP; row < area.row_1; row += blockDim.y * BOUND_STEP) {
        int first = area.col_0, last = area.col_1;
        clip(row, &first, &last);
        const Gradients gradients(frame, row);
        for (int col = first + threadIdx.x, count; col < last; col += blockDim.x * count) {
            count = lanes_of(last - col);
            prefetch_row(frame, row + 3 * BOUND_STEP, col, count);
            PerLane<real> by_row, by_col;
            for_each_lane([&](int i) INLINED {
                by_row[i] = gradients.by_row(col + i);
                by_col[i] = gradients.by_col(col + i);
            });
            gradients.mend_ends(col, count, by_col);
            for_each_lane([&](int i) INLINED {
                const real square = by_row[i] * by_row[i] + by_col[i] * by_col[i];
                best[i] = larger(best[i], i < count ? square : real(0));
            });
        }
    }
    real largest_square = 0;
    for_each_lane([&](int i) INLINED { largest_square = larger(largest_square, best[i]); });
    real bound = -1;
    exceeded(bits_of(root(largest_square)), steepest, &bound);
    return BOUND_MARGIN * bound;
}

// exp(falloff (i - centre)^2) for the rows, or columns, i from `first` to before `end`: a Gaussian of two dimensions is
// the product of two of one. `weights` has room for whole vectors.
DEVICE void gaussian_weights(int first, int end, real centre, real falloff, real* __restrict__ weights) {
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, n_threads = blockDim.x * blockDim.y;
    VECTORIZE
    for (int i = thread; i < whole_vectors(end - first); i += n_threads) {
        const real away = real(first + i) - centre;
        weights[i] = exponential(away * away * falloff);
    }
}

// Samples of a window that a thread takes at a time.
struct Samples {
    int count;
    PerSample<real> by_row, by_col, weight;
};

// Shared memory of `accumulate`: of the rows of a patch their weights and the columns [first, end) that matter, of its
// columns their weights.
struct WindowTables {
    real row_weights[PATCH], col_weights[PATCH];
    int first_cols[PATCH], end_cols[PATCH];
    fixed steepest;
};

// Fills the tables for a patch.
template <typename Clip>
DEVICE void fill_tables(const Frame& frame, const Area& patch, real falloff, const Clip& clip, WindowTables& tables) {
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, n_threads = blockDim.x * blockDim.y;
    gaussian_weights(patch.row_0, patch.row_1, frame.row, falloff, tables.row_weights);
    gaussian_weights(patch.col_0, patch.col_1, frame.col, falloff, tables.col_weights);
    for (int i = thread; i < patch.row_1 - patch.row_0; i += n_threads) {
        int first = patch.col_0, end = patch.col_1;
        clip(patch.row_0 + i, &first, &end);
        tables.first_cols[i] = first;
        tables.end_cols[i] = end;
    }
    __syncthreads();
}

// A thread's share of a row: a stretch of it, so that neighbours, which often add to the same sum, belong to one
// thread.
struct Stretch {
    Gradients gradients;
    real away, weight;  // of the row: from the keypoint, samples; and its factor of a sample's weight
    int first, end;     // columns
};

// Adds the samples of a patch to `sums`; see `accumulate`.
template <typename Sums>
DEVICE void add_patch(const Frame& frame, const Area& patch, real scale, real bound, const WindowTables& tables,
                      fixed* steepest, Sums& sums) {
    const int per_thread = 65536 / blockDim.x + 1;
    Samples samples;
    const auto begin = [&](int row) INLINED {
        const int i = row - patch.row_0, first = tables.first_cols[i], end = tables.end_cols[i];
        const int stretch = (end - first + blockDim.x - 1) * per_thread >> 16;  // rounded up; cheaper than a division
        const int col = first + threadIdx.x * stretch;
        return Stretch{Gradients(frame, row), real(row) - frame.row, tables.row_weights[i] * scale, col,
                       smaller(col + stretch, end)};
    };
    const auto take = [&](const Stretch& of_row, int row, int col, int at, int count) INLINED {
        const real* col_weights = tables.col_weights + (col - patch.col_0);
        prefetch_row(frame, row + 8, col, count);
        for_each_sample(count, [&](int i) INLINED {
            samples.by_row[at + i] = of_row.gradients.by_row(col + i);
            samples.by_col[at + i] = of_row.gradients.by_col(col + i);
            samples.weight[at + i] = of_row.weight * col_weights[i];
            sums.place(at + i, of_row.away, real(col + i) - frame.col);
        });
        of_row.gradients.mend_ends(col, count, samples.by_col + at);
    };
    for_each_strip(patch.row_0, patch.row_1, begin, take, [&](int count) INLINED {
        samples.count = count;
        sums.add(samples, bound, steepest);
    });
    sums.flush();
}

// Adds up what the samples of an area give, in fixed point, on a scale at which it cannot overflow. `sums` has
//
//     clear()                       sets the sums to 0
//     clip(row, &first, &last)      shortens a row to the columns that matter
//     place(i, row, col)            tells where sample i of the next ones lies, from the keypoint, samples
//     add(samples, bound, &steepest)    adds samples, which it may change, with gradients cut at `bound`, and raises
//                                   `steepest` to the bits of the steepest gradient, uncut
//     flush()                       adds what the thread still holds
//
// A sample's weight is scale exp(falloff (row^2 + col^2)). `all_weights` is the largest sum of all samples' shares, the
// scale left aside. The area is gone through in patches of at most PATCH x PATCH samples; one patch is usually enough.
template <typename Sums>
DEVICE void accumulate(const Frame& frame, const Area& area, real falloff, real all_weights, WindowTables& tables,
                       Sums& sums) {
    const auto clip = [&](int row, int* first, int* last) INLINED { sums.clip(row, first, last); };
    real bound = bound_of_gradients(frame, area, clip, &tables.steepest);
    fixed steepest;
    do {
        const real scale = scale_of(fixed_exponent(all_weights, bound));
        steepest = 0;
        sums.clear();
        for (int row = area.row_0; row < area.row_1; row += PATCH) {
            for (int col = area.col_0; col < area.col_1; col += PATCH) {
                const Area patch{row, smaller(row + PATCH, area.row_1), col, smaller(col + PATCH, area.col_1)};
                fill_tables(frame, patch, falloff, clip, tables);
                add_patch(frame, patch, scale, bound, tables, &steepest, sums);
                __syncthreads();
            }
        }
    } while (exceeded(steepest, &tables.steepest, &bound));
}

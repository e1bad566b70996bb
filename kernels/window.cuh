// The window around a keypoint: gradients, weights, a thread's walk through it; for orientation.cu and descriptor.cu.
#pragma once
#include "octave.cuh"

// Gradient of a level of an octave at (row, col): half the central difference, the one-sided difference at the edges
// (np.gradient).
DEVICE void gradient_at(const real* __restrict__ level, Octave octave, int row, int col, real* by_row, real* by_col) {
    const int up = larger(row - 1, 0), down = smaller(row + 1, octave.rows - 1);
    const int left = larger(col - 1, 0), right = smaller(col + 1, octave.cols - 1);
    const real* column = level + col;
    const real* here = level + (long long)row * octave.pitch;
    const real row_step = down - up == 2 ? real(0.5) : real(1), col_step = right - left == 2 ? real(0.5) : real(1);
    *by_row = (column[(long long)down * octave.pitch] - column[(long long)up * octave.pitch]) * row_step;
    *by_col = (here[right] - here[left]) * col_step;
}

// Gradients of `count` samples of a row from `col` on, of whole vectors; those past the row's end mean nothing. A host
// reads up to LANES samples before and after the row.
DEVICE void gradients_at(const real* __restrict__ level, Octave octave, int row, int col, int count,
                         real* __restrict__ by_row, real* __restrict__ by_col) {
    if (LANES > 1) {
        const int up = larger(row - 1, 0), down = smaller(row + 1, octave.rows - 1);
        const real row_step = down - up == 2 ? real(0.5) : real(1);
        const real* here = level + (long long)row * octave.pitch + col;
        const real* above = level + (long long)up * octave.pitch + col;
        const real* below = level + (long long)down * octave.pitch + col;
        VECTORIZE
        for (int lane = 0; lane < whole_vectors(count); ++lane) {
            by_row[lane] = (below[lane] - above[lane]) * row_step;
            by_col[lane] = (here[lane + 1] - here[lane - 1]) * real(0.5);
        }
    }
    const int last = octave.cols - 1 - col;
    if (LANES == 1 || col == 0) gradient_at(level, octave, row, col, by_row, by_col);
    if (LANES > 1 && last < count) gradient_at(level, octave, row, octave.cols - 1, by_row + last, by_col + last);
}

// Asks for samples of a row before they are needed; a GPU hides the latency of memory behind other threads.
DEVICE void prefetch_row(const real* __restrict__ level, Octave octave, int row, int col, int count) {
    if (LANES == 1) return;
    const real* there = level + (long long)smaller(row, octave.rows - 1) * octave.pitch + col;
    for (int lane = 0; lane < count; lane += LANES) PREFETCH(there + lane);
}

// Makes each of `best`, LANES values, the largest of itself and some of the squared gradients of the samples
// [first, last) of a row: those that this thread looks at.
DEVICE void largest_gradients(const real* __restrict__ level, Octave octave, int row, int first, int last,
                              real* __restrict__ best) {
    for (int col = first + threadIdx.x * LANES; col < last; col += blockDim.x * LANES) {
        real by_row[LANES], by_col[LANES];
        PREFETCH(level + (long long)smaller(row + 12, octave.rows - 1) * octave.pitch + col);
        gradients_at(level, octave, row, col, LANES, by_row, by_col);
        VECTORIZE
        for (int lane = 0; lane < LANES; ++lane) {
            const real square = by_row[lane] * by_row[lane] + by_col[lane] * by_col[lane];
            best[lane] = larger(best[lane], col + lane < last ? square : real(0));
        }
    }
}

// Whether the largest gradient that a thread has seen, of all threads, exceeds a bound, which then becomes that. The
// bits of a positive number sort as the number does.
DEVICE bool exceeded(fixed seen, fixed* steepest, real* bound) {
    if (threadIdx.x == 0 && threadIdx.y == 0) *steepest = 0;
    __syncthreads();
    atomicMax_block(steepest, seen);
    __syncthreads();
    const real largest = from_bits(*steepest);
    __syncthreads();
    if (!(largest > *bound)) return false;
    *bound = largest;
    return true;
}

// A thread's walk through the samples of a window, [row_0, row_1) x [col_0, col_1): SPAN neighbours in a row at a time,
// or fewer. Threads side by side share a row in stretches, so that what neighbours add to one sum comes from one
// thread.
struct Walk {
    int row, col, count;

    DEVICE_MEMBER Walk(int row_0, int row_1, int col_0, int col_1)
        : row(row_0 + threadIdx.y - blockDim.y),
          col(0),
          count(0),
          row_1(row_1),
          col_0(col_0),
          col_1(col_1),
          end(0),
          per_thread(65536 / blockDim.x + 1) {}

    // Goes on to the next ones; false if there are none. `clip` shrinks [col_0, col_1) to a row's share.
    template <typename Clip>
    DEVICE_MEMBER bool next(const Clip& clip) {
        col += count;
        while (col >= end) {
            row += blockDim.y;
            if (row >= row_1) return false;
            int first = col_0, last = col_1;
            clip(row, &first, &last);
            const int stretch = (last - first + blockDim.x - 1) * per_thread >> 16;  // enough for all, in place of a /
            col = first + threadIdx.x * stretch;
            end = smaller(col + stretch, last);
        }
        count = smaller(SPAN, end - col);
        return true;
    }

 private:
    int row_1, col_0, col_1, end, per_thread;
};

// A window's samples, [row_0, row_1) x [col_0, col_1), in patches of at most PATCH x PATCH: one, of windows that are
// not uncommonly wide.
template <typename Visit>
DEVICE void for_each_patch(int row_0, int row_1, int col_0, int col_1, const Visit& visit) {
    for (int row = row_0; row < row_1; row += PATCH)
        for (int col = col_0; col < col_1; col += PATCH)
            visit(row, col, smaller(row + PATCH, row_1), smaller(col + PATCH, col_1));
}

// A Gaussian of two dimensions is the product of two of one: exp(falloff (i - centre)^2) for the rows, or columns, i
// from `first` to before `end`, whose vectors `weights` has room for.
DEVICE void gaussian_weights(int first, int end, real centre, real falloff, int thread, int n_threads,
                             real* __restrict__ weights) {
    VECTORIZE
    for (int i = thread; i < whole_vectors(end - first); i += n_threads) {
        const real away = real(first + i) - centre;
        weights[i] = exponential(away * away * falloff);
    }
}

// Sums in fixed point need a scale at which they cannot overflow, so a bound of the gradients that they are made of. To
// look at every gradient first takes a pass of its own. Levels are smooth, so a multiple of the largest in every so
// many rows bounds all of them nearly always; and where it does not, what uses it finds out, and begins again.
#define BOUND_STEP 4
#define BOUND_MARGIN 2

// A bound of the gradients in the rows [row_0, row_1), of which `look` takes the largest of one row into LANES values;
// the same in all threads. `steepest` is in shared memory.
template <typename Look>
DEVICE real bound_of_gradients(int row_0, int row_1, fixed* steepest, const Look& look) {
    real best[LANES] = {};
    for (int row = row_0 + threadIdx.y * BOUND_STEP; row < row_1; row += blockDim.y * BOUND_STEP) look(row, best);
    real largest_square = 0;
    for (int lane = 0; lane < LANES; ++lane) largest_square = larger(largest_square, best[lane]);
    real bound = -1;
    exceeded(bits_of(root(largest_square)), steepest, &bound);
    return BOUND_MARGIN * bound;
}

// The histograms of gradient directions in a descriptor's window; for descriptor.cu.
#pragma once
#include "turned_window.cuh"
#include "held_sums.cuh"

// The histograms of a window while samples are added (Alg. 12, lines 6 to 13), for `accumulate`.
template <typename Window>
struct Histograms {
    Window& window;
    const Grid& grid;
    CellSums& cells;
    real orientation;

    DEVICE_MEMBER Histograms(Window& window, const Grid& grid, real orientation, CellSums& cells)
        : window(window), grid(grid), cells(cells), orientation(orientation) {}

    DEVICE_MEMBER void clear() { cells.clear(); }

    DEVICE_MEMBER void clip(int row, int* first, int* last) const { window.clip(real(row), first, last); }

    DEVICE_MEMBER void place(int i, real row, real col) { window.place(i, row, col); }

    DEVICE_MEMBER void add(Samples& samples, real bound, fixed* steepest) {
        window.normalize(samples);
        const real per_direction = real(grid.n_ori) / TWO_PI, per_cell = 1 / grid.spacing;
        const real first_cell = real(grid.n_hist + 1) / 2;
        CellSamples parts;
        fixed seen = *steepest;
        for_each_sample(samples.count, [&](int i) INLINED {
            const real by_row = samples.by_row[i], by_col = samples.by_col[i];
            const real turned_row = window.turned_row[i], turned_col = window.turned_col[i];
            const bool inside =
                (magnitude_of(turned_row) < grid.half) & (magnitude_of(turned_col) < grid.half) & (i < samples.count);
            const real steep = root(by_row * by_row + by_col * by_col);
            seen = larger(seen, inside ? bits_of(steep) : fixed(0));
            const real weighted = smaller(steep, bound) * samples.weight[i];
            const real row_place = turned_row * per_cell + first_cell;
            const real col_place = turned_col * per_cell + first_cell;
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

// Fills `values` with the histograms of a keypoint's window. The unit of the values is one of the window's own: a power
// of two that suits its steepest gradient. `sums` and `tables` are in shared memory.
template <typename Shape>
DEVICE void fill_histograms(const Frame& frame, Shape shape, const Grid& grid, real orientation, fixed* sums,
                            WindowTables& tables, real* values) {
    auto window = window_of(frame, shape, grid.half, grid.spread, orientation);
    CellSums cells(sums, grid.n_cells());
    Histograms<decltype(window)> histograms(window, grid, orientation, cells);
    accumulate(frame, window.area(frame), window.falloff, window.elongation() * grid.all_shares(), tables, histograms);
    gather_histograms(cells, grid, values);
}

// Sums in shared memory that samples are added to: of one number a sample, and of a cell's eight.
#pragma once
#include "arithmetic.cuh"

#ifdef PLATFORM_HELD_SUMS
#include PLATFORM_HELD_SUMS
#else

// Sums that the samples of an area add one number each to. A thread holds back what its samples give as long as they
// add to the same sum: fewer additions to sums that other threads add to as well.
struct HeldSums {
    DEVICE_MEMBER explicit HeldSums(fixed* sums) : sums(sums) {}

    DEVICE_MEMBER void add(int to, fixed value) {
        if (to == held_of) {
            held += value;
            return;
        }
        flush();
        held_of = to;
        held = value;
    }

    DEVICE_MEMBER void flush() {
        add_to(sums + held_of, held);
        held = 0;
    }

 private:
    fixed* sums;
    int held_of = 0;
    fixed held = 0;
};

// What samples add to the sums of their cells: the products of four corners and two directions, `before` and `after`.
// `cell` is negative where a sample adds nothing.
struct CellSamples {
    PerSample<int> cell;
    PerSample<real> corners[4], before, after;
};

// The sums of cells, at first eight each: those of its four corners at one direction, then at the next. A sample adds
// to all eight. Neighbouring cells are neighbouring directions, and the next direction's four are added to where the
// next cell's first four are, so that sums of neighbouring cells lie in different banks of shared memory.
struct CellSums {
    DEVICE_MEMBER CellSums(fixed* sums, int n_cells) : sums(sums), n_cells(n_cells) {}

    DEVICE_MEMBER void clear() {
        const int thread = threadIdx.y * blockDim.x + threadIdx.x, n_threads = blockDim.x * blockDim.y;
        for (int sum = thread; sum < 4 * n_cells; sum += n_threads) sums[sum] = 0;
    }

    // Adds samples; holds back what they give as long as they are of the same cell.
    DEVICE_MEMBER void add(int count, const CellSamples& samples) {
        for_each_sample_in_turn(count, [&](int i) {
            if (samples.cell[i] < 0) return;
            const int same = samples.cell[i] == cell;
            if (!same) flush();
            cell = samples.cell[i];
            UNROLL
            for (int part = 0; part < 8; ++part) {
                const real value = samples.corners[part & 3][i] * (part < 4 ? samples.before[i] : samples.after[i]);
                held[part] = held[part] * same + to_fixed(value);  // one instruction
            }
        });
    }

    DEVICE_MEMBER void flush() {
        if (cell < 0) return;
        UNROLL
        for (int part = 0; part < 8; ++part) add_to(sums + (part & 3) * n_cells + cell + (part >> 2), held[part]);
        cell = -1;
    }

    // Gives each cell its four sums: adds up the parts that came from the direction before. They are added already.
    DEVICE_MEMBER void fold() {}

    // A corner's sum of a cell, after `fold`.
    DEVICE_MEMBER fixed& corner(int of_cell, int corner) { return sums[corner * n_cells + of_cell]; }

 private:
    fixed* sums;
    int n_cells, cell = -1;
    fixed held[8] = {};
};

#endif

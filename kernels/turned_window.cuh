// The turned window of a descriptor, and how histograms lie on it; for descriptor.cu.
#pragma once
#include "window.cuh"

// The square window of a descriptor, turned by the keypoint's orientation; lengths in samples of the octave.
struct Window {
    real centre_row, centre_col, half, sine, cosine, per_sine, per_cosine;

    // Shortens [first, last), columns of a row, to those that can lie in the window, or a few more.
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

DEVICE Window window_of(const Frame& frame, real half, real orientation) {
    real sine, cosine;
    sine_cosine(orientation, &sine, &cosine);
    const real least = real(1e-3);
    const real per_sine = magnitude_of(sine) < least ? real(0) : 1 / sine;
    const real per_cosine = magnitude_of(cosine) < least ? real(0) : 1 / cosine;
    return {frame.row, frame.col, half, sine, cosine, per_sine, per_cosine};
}

// How a descriptor's histograms lie on its window. A sample lies between four histograms and two directions: in a cell.
// There are n_hist + 1 cells each way, those on the rim with histograms missing, and n_ori + 1 directions, the last of
// which is the first again.
struct Grid {
    int n_hist, n_ori, across, directions;
    real spread, spacing, half;  // the Gaussian's deviation; between histograms; half the window's side; samples

    DEVICE_MEMBER Grid(int n_hist, int n_ori, real lambda_descr, real sigma)
        : n_hist(n_hist),
          n_ori(n_ori),
          across(n_hist + 1),
          directions(n_ori + 1),
          spread(lambda_descr * sigma),
          spacing(2 * spread / real(n_hist)),
          half(lambda_descr * (1 + real(1) / real(n_hist)) * sigma) {}

    DEVICE_MEMBER int n_cells() const { return across * across * directions; }
    DEVICE_MEMBER int n_values() const { return n_hist * n_hist * n_ori; }

    // What the shares of all samples in a histogram add up to at most: a convex region of area A and perimeter P holds
    // at most A + P / 2 + 1 samples, and a share falls from 1 to 0 over such regions, in a square of side 2 spacing.
    DEVICE_MEMBER real all_shares() const { return spacing * spacing + 4 * spacing + 1; }
};

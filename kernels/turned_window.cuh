// The turned window of a descriptor, and how histograms lie on it; for descriptor.cu.
#pragma once
#include "shaped_window.cuh"

// The square window of a descriptor, turned by the keypoint's orientation; lengths in samples of the octave. Its
// interface is that of ShapedWindow.
struct Window {
    real centre_row, centre_col, half, sine, cosine, per_sine, per_cosine, falloff;
    PerSample<real> turned_row, turned_col;

    DEVICE_MEMBER Area area(const Frame& frame) const {
        const real radius = root(real(2)) * half;
        return area_of(frame, radius, radius, 0);
    }

    DEVICE_MEMBER real elongation() const { return 1; }

    // Shortens [first, last), columns of a row, to those that can lie in the window, or a few more.
    DEVICE_MEMBER void clip(real row, int* first, int* last) const {
        clip_to(centre_col, cosine * (row - centre_row) * per_sine, half * per_sine, first, last);
        clip_to(centre_col, -sine * (row - centre_row) * per_cosine, half * per_cosine, first, last);
    }

    DEVICE_MEMBER void place(int i, real row, real col) {
        turned_row[i] = cosine * row + sine * col;
        turned_col[i] = cosine * col - sine * row;
    }

    DEVICE_MEMBER void normalize(Samples&) const {}
};

DEVICE Window window_of(const Frame& frame, Circle, real half, real spread, real orientation) {
    real sine, cosine;
    sine_cosine(orientation, &sine, &cosine);
    Window window;
    window.centre_row = frame.row, window.centre_col = frame.col;
    window.half = half, window.falloff = -1 / (2 * spread * spread);
    window.sine = sine, window.cosine = cosine;
    window.per_sine = reciprocal_of(sine), window.per_cosine = reciprocal_of(cosine);
    return window;
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

// The window around a keypoint with an affine shape; for affine_shape.cu, orientation.cu and descriptor.cu.
#pragma once
#include "window.cuh"
#include "shape.cuh"

// 1 / x, or 0 where x is all but 0.
DEVICE real reciprocal_of(real x) { return magnitude_of(x) < real(1e-3) ? real(0) : 1 / x; }

// Shortens [first, last) to columns at most `away` from centre_col - shift; 0: no limit, the side is all but parallel
// to the row.
DEVICE void clip_to(real centre_col, real shift, real away, int* first, int* last) {
    if (away == 0) return;
    const real middle = centre_col - shift, reach = magnitude_of(away);
    const real from = floor_of(middle - reach), to = floor_of(middle + reach) + 2;
    *first = from > real(*first) ? int(smaller(from, real(*last))) : *first;
    *last = to < real(*last) ? int(larger(to, real(*first))) : *last;
}

// The window of a keypoint with an affine shape: a square in normalized coordinates, turned there by an orientation, so
// a parallelogram in the level. `accumulate` gives each sample the weight 1; the window has the Gaussian, which is not
// a product of one of rows and one of columns here.
struct ShapedWindow {
    Shape shape;
    real centre_row, centre_col, half, gaussian, elongated, per_elongation;
    real row_by_row, row_by_col, col_by_row, col_by_col;  // turned coordinates of an offset
    real per_row_by_col, per_col_by_col, rows, cols;
    PerSample<real> turned_row, turned_col;

    static constexpr real falloff = 0;

    DEVICE_MEMBER Area area(const Frame& frame, int includes_end = 0) const {
        return area_of(frame, rows + 1, cols + 1, includes_end);  // rounding leaves nothing out
    }

    // By how much more samples the window has than that of a circle, at most.
    DEVICE_MEMBER real elongation() const { return elongated; }

    // Shortens [first, last), columns of a row, to those that can lie in the window, or a few more.
    DEVICE_MEMBER void clip(real row, int* first, int* last) const {
        const real away = row - centre_row;
        clip_to(centre_col, row_by_row * away * per_row_by_col, half * per_row_by_col, first, last);
        clip_to(centre_col, col_by_row * away * per_col_by_col, half * per_col_by_col, first, last);
    }

    // Takes where sample i lies, from the keypoint.
    DEVICE_MEMBER void place(int i, real row, real col) {
        turned_row[i] = row_by_row * row + row_by_col * col;
        turned_col[i] = col_by_row * row + col_by_col * col;
    }

    // Weighs samples by the Gaussian; those outside the window by 0.
    DEVICE_MEMBER void weigh(Samples& samples) const {
        for_each_sample(samples.count, [&](int i) INLINED {
            const bool inside = (magnitude_of(turned_row[i]) < half) & (magnitude_of(turned_col[i]) < half);
            const real square = turned_row[i] * turned_row[i] + turned_col[i] * turned_col[i];
            const real weight = samples.weight[i] * exponential(square * gaussian);
            samples.weight[i] = inside ? weight : real(0);
        });
    }

    // Weighs samples, and takes their gradients to normalized coordinates, divided by the elongation, so that none
    // becomes steeper.
    DEVICE_MEMBER void normalize(Samples& samples) const {
        weigh(samples);
        for_each_sample(samples.count, [&](int i) INLINED {
            const real by_row = samples.by_row[i] * per_elongation, by_col = samples.by_col[i] * per_elongation;
            samples.by_row[i] = shape.rr * by_row + shape.rc * by_col;
            samples.by_col[i] = shape.rc * by_row + shape.cc * by_col;
        });
    }
};

// half, spread: half the window's side, and the Gaussian's deviation, samples.
DEVICE ShapedWindow window_of(const Frame& frame, Shape shape, real half, real spread, real orientation) {
    real sine, cosine;
    sine_cosine(orientation, &sine, &cosine);
    const real elongation = shape.elongation(), per_elongation = 1 / elongation;
    const real rr = shape.cc * per_elongation, rc = -shape.rc * per_elongation, cc = shape.rr * per_elongation;
    ShapedWindow window;
    window.shape = shape;
    window.centre_row = frame.row, window.centre_col = frame.col;
    window.half = half, window.gaussian = -1 / (2 * spread * spread);
    window.elongated = elongation, window.per_elongation = per_elongation;
    window.row_by_row = cosine * rr + sine * rc, window.row_by_col = cosine * rc + sine * cc;
    window.col_by_row = cosine * rc - sine * rr, window.col_by_col = cosine * cc - sine * rc;
    window.per_row_by_col = reciprocal_of(window.row_by_col);
    window.per_col_by_col = reciprocal_of(window.col_by_col);
    window.rows =
        half * (magnitude_of(shape.rr * cosine + shape.rc * sine) + magnitude_of(shape.rc * cosine - shape.rr * sine));
    window.cols =
        half * (magnitude_of(shape.rc * cosine + shape.cc * sine) + magnitude_of(shape.cc * cosine - shape.rc * sine));
    return window;
}

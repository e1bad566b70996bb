// Points of a level under an affine map.
#pragma once
#include "octave.cuh"
#include "shape.cuh"

#define LEAST_DETERMINANT real(0.25)  // of the matrix of an increment and its inverse

struct Point {
    real row, col;
};

// One level of an octave.
struct LevelView {
    const real* samples;
    int rows, cols, pitch;

    // Whether a point lies inside the level, at least `margin` away from its border.
    DEVICE_MEMBER bool has(Point at, real margin) const {
        return at.row >= margin && at.row <= real(rows - 1) - margin && at.col >= margin &&
               at.col <= real(cols - 1) - margin;
    }
};

DEVICE LevelView level_view(const real* __restrict__ levels, const long long* __restrict__ octaves, int o, int s) {
    const Octave octave = octave_of(octaves, o);
    return {levels + octave.offset + s * octave.plane, octave.rows, octave.cols, octave.pitch};
}

// A level between its samples, by bilinear interpolation, and the derivatives of that; clamped to the level's edges.
struct Interpolated {
    real value, by_row, by_col;
};

DEVICE Interpolated interpolate(LevelView level, Point at) {
    const real row = smaller(larger(at.row, real(0)), real(level.rows - 1));
    const real col = smaller(larger(at.col, real(0)), real(level.cols - 1));
    const int r = smaller(int(row), level.rows - 2), c = smaller(int(col), level.cols - 2);
    const real down = row - real(r), right = col - real(c);
    const real* here = level.samples + (long long)r * level.pitch + c;
    const real* below = here + level.pitch;
    const real upper = here[0] + right * (here[1] - here[0]), lower = below[0] + right * (below[1] - below[0]);
    const real left_step = below[0] - here[0], right_step = below[1] - here[1];
    return {upper + down * (lower - upper), lower - upper, (here[1] - here[0]) + down * (right_step - left_step)};
}

// An affine map from a template's coordinates, in sigmas, to a level's samples.
struct Affine {
    real row, col;        // of u = (0, 0)
    real rr, rc, cr, cc;  // matrix: row from u's row and column, column from these

    DEVICE_MEMBER Point at(real u_row, real u_col) const {
        return {row + (rr * u_row + rc * u_col), col + (cr * u_row + cc * u_col)};
    }

    // This map after the inverse of u -> u + shift + matrix u, whose parameters are d; false if that has none.
    DEVICE_MEMBER bool compose_with_inverse(const real* d) {
        const real a = 1 + d[2], b = d[3], c = d[4], e = 1 + d[5], determinant = a * e - b * c;
        if (!(determinant > LEAST_DETERMINANT && determinant < 1 / LEAST_DETERMINANT)) return false;
        const real scale = 1 / determinant;
        const real new_rr = (rr * e - rc * c) * scale, new_rc = (rc * a - rr * b) * scale;
        const real new_cr = (cr * e - cc * c) * scale, new_cc = (cc * a - cr * b) * scale;
        rr = new_rr, rc = new_rc, cr = new_cr, cc = new_cc;
        row = row - (rr * d[0] + rc * d[1]);
        col = col - (cr * d[0] + cc * d[1]);
        return true;
    }
};

// The map that turns and scales the first keypoint's surroundings to the second's, to the samples of its level.
DEVICE Affine similarity(real row, real col, real turn, real scale) {
    turn = turn > PI ? turn - TWO_PI : turn < -PI ? turn + TWO_PI : turn;
    real sine, cosine;
    sine_cosine(turn, &sine, &cosine);
    return {row, col, cosine * scale, -sine * scale, sine * scale, cosine * scale};
}

// A map between keypoints with affine shapes: `turned`, which maps their normalized coordinates, between those of their
// images. It takes the first shape's normalized coordinates, and stretches to the second's.
DEVICE Affine between(Affine turned, Circle, Circle) { return turned; }
DEVICE Affine between(Affine turned, Shape first, Shape second) {
    const real per = 1 / first.elongation();
    const real rr = first.cc * per, rc = -first.rc * per, cc = first.rr * per;  // the inverse
    const Affine from{turned.row,
                      turned.col,
                      turned.rr * rr + turned.rc * rc,
                      turned.rr * rc + turned.rc * cc,
                      turned.cr * rr + turned.cc * rc,
                      turned.cr * rc + turned.cc * cc};
    return {from.row,
            from.col,
            second.rr * from.rr + second.rc * from.cr,
            second.rr * from.rc + second.rc * from.cc,
            second.rc * from.rr + second.cc * from.cr,
            second.rc * from.rc + second.cc * from.cc};
}

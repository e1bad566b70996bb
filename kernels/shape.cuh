// The affine shape of a keypoint's region.
#pragma once
#include "arithmetic.cuh"

// The shape of a keypoint without an affine one: its windows are squares.
struct Circle {};

// An affine shape: a symmetric matrix S whose eigenvalues are 1 and the elongation, by rows and columns. The windows of
// the keypoint are squares in normalized coordinates u; the sample at u is S u from the keypoint.
struct Shape {
    real rr, rc, cc;

    DEVICE_MEMBER real elongation() const { return rr * cc - rc * rc; }  // the determinant
};

// The shape of a keypoint, if kernels are compiled for shapes: four numbers of `shapes`.
template <int shaped>
DEVICE auto shape_at(const real* __restrict__ shapes, long long keypoint) {
    if constexpr (shaped)
        return Shape{shapes[4 * keypoint], shapes[4 * keypoint + 1], shapes[4 * keypoint + 3]};
    else
        return Circle{};
}

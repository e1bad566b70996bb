// Affine shapes of the keypoints (Lindeberg & Garding 1997; Baumberg 2000; Mikolajczyk & Schmid 2004, section 4).
//
// The shape of a keypoint is a symmetric matrix S with the eigenvalues 1 and q, in whose normalized coordinates the
// texture has no preferred direction: u belongs to the sample that is sigma S u from the keypoint. There the second
// moments of the gradients,
//
//     M(S) = sum w(|u|) g g^T,   w(r) = exp(-r^2 / (2 lambda^2)),   |u by row|, |u by column| <= 3 lambda,
//
// become a multiple of the identity: S M(S) S = c, or S^2 = c M(S)^-1. From S = 1 on, S^2 is set to M(S)^-1 some times,
// scaled so that its smaller eigenvalue is 1. A shape longer than `most` is an edge's: the shape before it is kept.
//
// The gradients are those of the keypoint's level, whose blur is that of the shorter axis. Normalized coordinates are
// determined up to a rotation, which the orientation gives.
//
// Sums are fixed-point, so they do not depend on the order in which threads add to them.
#include "shaped_window.cuh"
#include "work_list.cuh"

// The second moments of the gradients in a window while samples are added; `accumulate` uses it. sums[k] for k = 0, 1,
// 2: by row, mixed, by column.
struct Moments {
    ShapedWindow& window;
    fixed* sums;
    fixed held[3] = {};

    DEVICE_MEMBER Moments(ShapedWindow& window, fixed* sums) : window(window), sums(sums) {}

    DEVICE_MEMBER void clear() {
        const int thread = threadIdx.y * blockDim.x + threadIdx.x, n_threads = blockDim.x * blockDim.y;
        for (int k = thread; k < 3; k += n_threads) sums[k] = 0;
    }

    DEVICE_MEMBER void clip(int row, int* first, int* last) const { window.clip(real(row), first, last); }

    DEVICE_MEMBER void place(int i, real row, real col) { window.place(i, row, col); }

    DEVICE_MEMBER void add(Samples& samples, real bound, fixed* steepest) {
        window.weigh(samples);
        const real per_bound = bound > 0 ? 1 / bound : real(0);
        PerSample<fixed> products[3];
        fixed seen = *steepest;
        for_each_sample(samples.count, [&](int i) INLINED {
            const real by_row = samples.by_row[i], by_col = samples.by_col[i];
            const real steep = root(by_row * by_row + by_col * by_col);
            seen = larger(seen, i < samples.count ? bits_of(steep) : fixed(0));
            const real weight = steep > bound ? real(0) : samples.weight[i];  // steeper: the sums are begun anew
            const real row_share = weight * (by_row * per_bound), col_share = weight * (by_col * per_bound);
            products[0][i] = to_fixed(row_share * by_row);
            products[1][i] = to_fixed(row_share * by_col);
            products[2][i] = to_fixed(col_share * by_col);
        });
        *steepest = seen;
        for_each_sample_in_turn(samples.count, [&](int i) INLINED {
            UNROLL
            for (int k = 0; k < 3; ++k) held[k] += products[k][i];
        });
    }

    DEVICE_MEMBER void flush() {
        UNROLL
        for (int k = 0; k < 3; ++k) {
            add_to(sums + k, held[k]);
            held[k] = 0;
        }
    }
};

// The shape with S^2 = c M^-1 for these second moments; the circle if they have no preferred direction. False if it is
// longer than `most`.
DEVICE bool shape_of(real rr, real rc, real cc, real most, Shape* shape) {
    const real mean = (rr + cc) / 2, difference = (rr - cc) / 2;
    const real apart = root(difference * difference + rc * rc);  // half the difference of the eigenvalues
    if (!(apart > 0)) {
        *shape = {1, 0, 1};
        return true;
    }
    const real larger_one = mean + apart, smaller_one = mean - apart;
    if (!(larger_one <= most * most * smaller_one)) return false;
    const real elongation = root(larger_one / smaller_one);
    // S = 1 + (q - 1) P, where P = (larger eigenvalue - M) / (difference of the eigenvalues) projects on the long axis
    const real share = (elongation - 1) / (2 * apart);
    *shape = {1 + share * (larger_one - rr), -share * rc, 1 + share * (larger_one - cc)};
    return true;
}

// Estimates the shapes of keypoints. A block takes one keypoint after the other from the list. What has no comment is
// as for `assign_orientations`.
//
//     lambda     deviation of the Gaussian weight, sigmas
//     n_turns    times that a shape is estimated with the window of the one before
//     most       largest elongation
//     shapes     (images, capacity, 2, 2)    of the candidates
KERNEL estimate_shapes(const real* __restrict__ levels, const long long stride, const long long* __restrict__ octaves,
                       const int* __restrict__ keypoints, const int* __restrict__ length, int* __restrict__ counter,
                       const int capacity, const real* __restrict__ positions, const real* __restrict__ sigmas,
                       const int* __restrict__ in_octave, const int* __restrict__ in_scale, const real delta_min,
                       const real lambda, const int n_turns, const real most, real* __restrict__ shapes) {
    __shared__ fixed sums[3];
    __shared__ WindowTables tables;
    __shared__ int taken;
    const long long first = (long long)blockIdx.z * capacity;
    while (true) {
        const int keypoint = take(&counter[blockIdx.z], length[blockIdx.z], &taken);
        if (keypoint >= length[blockIdx.z]) return;
        const long long i = first + keypoints[first + keypoint];
        const Frame frame = frame_of(levels + blockIdx.z * stride, octaves, in_octave[i], in_scale[i],
                                     positions + 2 * i, sigmas[i], delta_min);
        const real spread = lambda * frame.sigma;
        const real along = 1 + root(TWO_PI) * spread;  // see assign_orientations
        Shape shape{1, 0, 1};
        ONE_BY_ONE
        for (int turn = 0; turn < n_turns; ++turn) {
            ShapedWindow window = window_of(frame, shape, 3 * spread, spread, 0);
            Moments moments(window, sums);
            accumulate(frame, window.area(frame, 1), window.falloff, window.elongation() * along * along, tables,
                       moments);
            __syncthreads();  // the next `accumulate` writes to the tables
            // each thread computes the same of the same sums, and has done so when the next `accumulate` clears them
            if (!shape_of(real(sums[0]), real(sums[1]), real(sums[2]), most, &shape)) break;
        }
        if (threadIdx.x == 0 && threadIdx.y == 0) {
            shapes[4 * i] = shape.rr;
            shapes[4 * i + 1] = shapes[4 * i + 2] = shape.rc;
            shapes[4 * i + 3] = shape.cc;
        }
    }
}

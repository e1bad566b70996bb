// The steps of aligning a template with an image, for alignment.cu, whose head has the formulas.
#pragma once
#include "affine.cuh"

#define TEMPLATE_SIDE 17
#define TEMPLATE_SAMPLES (TEMPLATE_SIDE * TEMPLATE_SIDE)
#define AFFINE 6                   // parameters of an affine map
#define ALIGNMENT_LANES 16         // of a sum
#define WEIGHT_SPREAD real(4)      // standard deviation of the weights, samples
#define LEAST_PIVOT real(1e-5)     // of H, as a fraction of its diagonal: below, the template does not fix the map
#define LEAST_CONTRAST real(1e-5)  // weighted standard deviation of a patch, intensity
#define MARGIN real(0.5)           // of a level, in sigmas of the keypoint: there its blur has used mirrored samples
#define LEAST_WEIGHT real(0.5)     // of the Gaussian, on samples inside the margins of both images

// What the threads of a block share while they align a template.
struct Alignment {
    real gaussian[TEMPLATE_SAMPLES], weights[TEMPLATE_SAMPLES], pattern[TEMPLATE_SAMPLES], patch[TEMPLATE_SAMPLES];
    real jacobian[AFFINE][TEMPLATE_SAMPLES];
    real lanes[AFFINE * AFFINE][ALIGNMENT_LANES], sums[AFFINE * AFFINE], step[AFFINE];
    real factor[AFFINE * AFFINE];  // Cholesky's, of H
    Affine map;
    int valid;
};

// sums[k] = sum over the samples i of value(k, i), for k < n_sums: in ALIGNMENT_LANES lanes, and these by one tree.
template <typename Value>
DEVICE void sum_samples(Alignment& shared, int n_sums, const Value& value) {
    static_assert(ALIGNMENT_LANES == 16);
    __syncthreads();
    for (int k = threadIdx.y; k < n_sums; k += blockDim.y) {
        VECTORIZE
        for (int lane = threadIdx.x; lane < ALIGNMENT_LANES; lane += blockDim.x) shared.lanes[k][lane] = 0;
        for (int first = 0; first < TEMPLATE_SAMPLES; first += ALIGNMENT_LANES) {
            const int n = smaller(ALIGNMENT_LANES, TEMPLATE_SAMPLES - first);
            VECTORIZE
            for (int lane = threadIdx.x; lane < n; lane += blockDim.x) shared.lanes[k][lane] += value(k, first + lane);
        }
    }
    __syncthreads();
    for (int k = threadIdx.y * blockDim.x + threadIdx.x; k < n_sums; k += blockDim.x * blockDim.y) {
        const real* lanes = shared.lanes[k];
        real halves[8];
        UNROLL
        for (int i = 0; i < 8; ++i) halves[i] = lanes[i] + lanes[i + 8];
        UNROLL
        for (int i = 0; i < 4; ++i) halves[i] += halves[i + 4];
        shared.sums[k] = (halves[0] + halves[2]) + (halves[1] + halves[3]);
    }
    __syncthreads();
}

// Calls visit(i, row, column) for each sample i of a template and its coordinates, in samples from the middle.
template <typename Visit>
DEVICE void for_each_sample(const Visit& visit) {
    for (int row = threadIdx.y; row < TEMPLATE_SIDE; row += blockDim.y) {
        VECTORIZE
        for (int col = threadIdx.x; col < TEMPLATE_SIDE; col += blockDim.x)
            visit(row * TEMPLATE_SIDE + col, real(row - TEMPLATE_SIDE / 2), real(col - TEMPLATE_SIDE / 2));
    }
}

// A Gaussian that adds up to 1.
DEVICE void set_gaussian(Alignment& shared) {
    const real falloff = -1 / (2 * WEIGHT_SPREAD * WEIGHT_SPREAD);
    for_each_sample([&](int i, real row, real col) {
        shared.gaussian[i] = exponential(row * row * falloff) * exponential(col * col * falloff);
    });
    sum_samples(shared, 1, [&](int, int i) { return shared.gaussian[i]; });
    const real scale = 1 / shared.sums[0];
    for_each_sample([&](int i, real, real) { shared.gaussian[i] = shared.gaussian[i] * scale; });
}

// The weights, which add up to 1: the Gaussian, but 0 for samples outside or near the border of either image. False if
// too little of the Gaussian is left.
DEVICE bool set_weights(Alignment& shared, const unsigned char* __restrict__ inside, LevelView level, Affine map,
                        real spacing, real margin) {
    for_each_sample([&](int i, real row, real col) {
        const bool seen = inside[i] != 0 && level.has(map.at(row * spacing, col * spacing), margin);
        shared.weights[i] = seen ? shared.gaussian[i] : real(0);
    });
    sum_samples(shared, 1, [&](int, int i) { return shared.weights[i]; });
    const real part = shared.sums[0];
    if (!(part > LEAST_WEIGHT)) return false;
    const real scale = 1 / part;
    for_each_sample([&](int i, real, real) { shared.weights[i] = shared.weights[i] * scale; });
    return true;
}

// Brings values to weighted mean 0 and weighted variance 1; returns their standard deviation, 0 if they hardly differ.
// Each thread has set its own values; the next `sum_samples` lets the others read them.
DEVICE real normalize(Alignment& shared, real* values) {
    sum_samples(shared, 1, [&](int, int i) { return shared.weights[i] * values[i]; });
    const real mean = shared.sums[0];
    for_each_sample([&](int i, real, real) { values[i] = values[i] - mean; });
    sum_samples(shared, 1, [&](int, int i) { return shared.weights[i] * (values[i] * values[i]); });
    const real deviation = root(shared.sums[0]);
    if (!(deviation > LEAST_CONTRAST)) return 0;
    const real scale = 1 / deviation;
    for_each_sample([&](int i, real, real) { values[i] = values[i] * scale; });
    return deviation;
}

// The template's pattern, normalized, and what it changes by with each parameter of the map; false if it is flat.
DEVICE bool set_template(Alignment& shared, const real* __restrict__ sampled, real spacing) {
    for_each_sample([&](int i, real, real) { shared.pattern[i] = sampled[i]; });
    const real deviation = normalize(shared, shared.pattern);
    if (deviation == 0) return false;
    const real scale = 1 / deviation;
    for_each_sample([&](int i, real row, real col) {
        const real by_row = sampled[TEMPLATE_SAMPLES + i] * scale, by_col = sampled[2 * TEMPLATE_SAMPLES + i] * scale;
        const real u_row = row * spacing, u_col = col * spacing;
        shared.jacobian[0][i] = by_row;
        shared.jacobian[1][i] = by_col;
        shared.jacobian[2][i] = by_row * u_row;
        shared.jacobian[3][i] = by_row * u_col;
        shared.jacobian[4][i] = by_col * u_row;
        shared.jacobian[5][i] = by_col * u_col;
    });
    // what only changes brightness and contrast is taken off
    sum_samples(shared, 2 * AFFINE, [&](int k, int i) {
        const real weighted = shared.weights[i] * shared.jacobian[k % AFFINE][i];
        return k < AFFINE ? weighted : weighted * shared.pattern[i];
    });
    for_each_sample([&](int i, real, real) {
        for (int k = 0; k < AFFINE; ++k)
            shared.jacobian[k][i] =
                shared.jacobian[k][i] - shared.sums[k] - shared.pattern[i] * shared.sums[AFFINE + k];
    });
    return true;
}

// The Cholesky factor of H, in place of H (lower triangle); false if H is as good as singular.
DEVICE bool factorize(real* h) {
    for (int column = 0; column < AFFINE; ++column) {
        real pivot = h[column * AFFINE + column];
        const real least = LEAST_PIVOT * pivot;
        for (int k = 0; k < column; ++k) pivot = pivot - h[column * AFFINE + k] * h[column * AFFINE + k];
        if (!(pivot > least)) return false;
        const real diagonal = root(pivot);
        h[column * AFFINE + column] = diagonal;
        for (int row = column + 1; row < AFFINE; ++row) {
            real sum = h[row * AFFINE + column];
            for (int k = 0; k < column; ++k) sum = sum - h[row * AFFINE + k] * h[column * AFFINE + k];
            h[row * AFFINE + column] = sum / diagonal;
        }
    }
    return true;
}

// H^-1 b, in place of b.
DEVICE void solve(const real* factor, real* b) {
    for (int row = 0; row < AFFINE; ++row) {
        for (int k = 0; k < row; ++k) b[row] = b[row] - factor[row * AFFINE + k] * b[k];
        b[row] = b[row] / factor[row * AFFINE + row];
    }
    for (int row = AFFINE - 1; row >= 0; --row) {
        for (int k = row + 1; k < AFFINE; ++k) b[row] = b[row] - factor[k * AFFINE + row] * b[k];
        b[row] = b[row] / factor[row * AFFINE + row];
    }
}

// The second image's patch under the present map, normalized; false if it is flat.
DEVICE bool set_patch(Alignment& shared, LevelView level, real spacing) {
    const Affine map = shared.map;
    for_each_sample([&](int i, real row, real col) {
        shared.patch[i] = interpolate(level, map.at(row * spacing, col * spacing)).value;
    });
    return normalize(shared, shared.patch) > 0;
}

// Aligns the template with the level, from the present map on; whether it could be done.
DEVICE bool align(Alignment& shared, LevelView level, real spacing, int n_steps) {
    const bool first = threadIdx.x == 0 && threadIdx.y == 0;
    sum_samples(shared, AFFINE * AFFINE, [&](int k, int i) {
        return shared.weights[i] * (shared.jacobian[k / AFFINE][i] * shared.jacobian[k % AFFINE][i]);
    });
    if (first) {
        for (int k = 0; k < AFFINE * AFFINE; ++k) shared.factor[k] = shared.sums[k];
        shared.valid = factorize(shared.factor);
    }
    __syncthreads();
    for (int step = 0; step < n_steps && shared.valid; ++step) {
        if (!set_patch(shared, level, spacing)) return false;
        sum_samples(shared, AFFINE, [&](int k, int i) {
            return shared.weights[i] * (shared.jacobian[k][i] * (shared.patch[i] - shared.pattern[i]));
        });
        if (first) {
            for (int k = 0; k < AFFINE; ++k) shared.step[k] = shared.sums[k];
            solve(shared.factor, shared.step);
            shared.valid = shared.map.compose_with_inverse(shared.step);
        }
        __syncthreads();
    }
    return shared.valid;
}

// Reference orientations of the keypoints (Otero & Delbracio 2014, Alg. 11).
#include "common.cuh"

// One block per keypoint. A histogram of n_bins directions over the patch |row - y|, |col - x| <= 3 lambda_ori sigma,
// each sample adding its gradient's magnitude, weighted by exp(-d^2 / (2 (lambda_ori sigma)^2)), to the bin that
//
//     floor(n_bins theta / 2 pi + 1/2) mod n_bins,   theta = atan2(gradient by column, gradient by row)
//
// names; smoothed n_smoothings times by (1/3, 1/3, 1/3), as a circle; each bin that is not less than its neighbours and
// at least c_max times the highest gives an orientation, refined by a parabola through the three:
//
//     2 pi (bin + (h_- - h_+) / (2 (h_- + h_+ - 2 h)) + bin_centre) / n_bins
//
// A bin's centre is at bin_centre = 0; scikit-image and IPOL take it to be at 1/2. Sums are fixed-point, on a scale
// that the patch's largest gradient gives, so they do not depend on the order in which threads come.
//
//     levels     flat                all octaves' levels, images stride samples apart; LANES samples of room at both
//     ends octaves    (n_octaves, 8)      see common.cuh keypoints  (images, capacity)  for each, which candidate it is
//     length     (images,)           number of keypoints
//     positions  (images, capacity, 2)   the candidates' row, column, input pixels
//     sigmas     (images, capacity)  input pixels
//     in_octave, in_scale (images, capacity)   octave, and scale index within it
//     delta_min                      distance of the first octave's samples, input pixels
//     bin_centre                     bins
//     further    (images, capacity)  number of orientations after the first
//     angles     (images, capacity, n_bins)   the orientations, radians in (-pi, pi], in the order of their bins
KERNEL assign_orientations(const real* __restrict__ levels, const long long stride,
                           const long long* __restrict__ octaves, const int* __restrict__ keypoints,
                           const int* __restrict__ length, const int capacity, const real* __restrict__ positions,
                           const real* __restrict__ sigmas, const int* __restrict__ in_octave,
                           const int* __restrict__ in_scale, const real delta_min, const real lambda_ori,
                           const int n_bins, const int n_smoothings, const real c_max, const real bin_centre,
                           int* __restrict__ further, real* __restrict__ angles) {
    __shared__ fixed sums[MAX_BINS];
    __shared__ real histogram[MAX_BINS], smoothed[MAX_BINS];
    __shared__ fixed steepest;  // the bits of a positive float sort as the float does
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, n_threads = blockDim.x * blockDim.y;
    for (int keypoint = blockIdx.x; keypoint < length[blockIdx.z]; keypoint += gridDim.x) {
        const long long at = (long long)blockIdx.z * capacity + keypoint;
        const long long i = (long long)blockIdx.z * capacity + keypoints[at];
        const Octave octave = octave_of(octaves, in_octave[i]);
        const real* level = levels + blockIdx.z * stride + octave.offset + in_scale[i] * octave.plane;
        const real delta = delta_min * real(1LL << in_octave[i]);
        const real centre_row = positions[2 * i] / delta, centre_col = positions[2 * i + 1] / delta;
        const real sigma = sigmas[i] / delta, radius = 3 * lambda_ori * sigma;
        const int row_0 = larger(0, whole_within(centre_row - radius + real(0.5), octave.rows));
        const int col_0 = larger(0, whole_within(centre_col - radius + real(0.5), octave.cols));
        const int row_1 = whole_within(centre_row + radius + real(0.5), octave.rows - 1);
        const int col_1 = whole_within(centre_col + radius + real(0.5), octave.cols - 1);

        for (int bin = thread; bin < n_bins; bin += n_threads) sums[bin] = 0;
        if (thread == 0) steepest = 0;
        __syncthreads();

        real best[LANES] = {};
        for (int row = row_0 + threadIdx.y; row <= row_1; row += blockDim.y)
            largest_gradients(level, octave, row, col_0, col_1 + 1, best);
        real largest_square = 0;
        for (int lane = 0; lane < LANES; ++lane) largest_square = larger(largest_square, best[lane]);
        atomicMax_block(&steepest, bits_of(root(largest_square)));
        __syncthreads();

        const real largest = from_bits(steepest);
        if (largest > 0) {
            const real n_samples = real(row_1 - row_0 + 1) * real(col_1 - col_0 + 1);
            const int exponent = fixed_exponent(n_samples, largest);
            const real per_angle = real(n_bins) / TWO_PI;
            const real scale = scale_of(exponent), falloff = -1 / (2 * (lambda_ori * sigma) * (lambda_ori * sigma));
            for (int row = row_0 + threadIdx.y; row <= row_1; row += blockDim.y) {
                const real away_row = real(row) - centre_row;
                for (int col = col_0 + threadIdx.x * STRIP; col <= col_1; col += blockDim.x * STRIP) {
                    const int count = smaller(STRIP, col_1 + 1 - col);
                    fixed weight[STRIP];
                    int bin[STRIP];
                    real by_row[STRIP], by_col[STRIP];
                    gradients_at(level, octave, row, col, count, by_row, by_col);
                    VECTORIZE
                    for (int lane = 0; lane < whole_vectors(count); ++lane) {
                        const real away_col = real(col + lane) - centre_col;
                        const real steep = root(by_row[lane] * by_row[lane] + by_col[lane] * by_col[lane]);
                        const real near = exponential((away_row * away_row + away_col * away_col) * falloff);
                        real theta = arctangent(by_col[lane], by_row[lane]);
                        theta = theta < 0 ? theta + TWO_PI : theta;
                        real place = theta * per_angle + real(0.5);
                        place = place >= real(n_bins) ? place - real(n_bins) : place;
                        bin[lane] = int(place);
                        weight[lane] = to_fixed(near * steep * scale);
                    }
                    for (int lane = 0; lane < count; ++lane) add_to(&sums[bin[lane]], weight[lane]);
                }
            }
        }
        __syncthreads();

        for (int bin = thread; bin < n_bins; bin += n_threads) histogram[bin] = real(sums[bin]);
        __syncthreads();
        for (int turn = 0; turn < n_smoothings; ++turn) {
            real* from = turn % 2 ? smoothed : histogram;
            real* to = turn % 2 ? histogram : smoothed;
            for (int bin = thread; bin < n_bins; bin += n_threads) {
                const real third = real(1) / 3;
                const real before = from[bin == 0 ? n_bins - 1 : bin - 1];
                const real after = from[bin == n_bins - 1 ? 0 : bin + 1];
                to[bin] = before * third + from[bin] * third + after * third;
            }
            __syncthreads();
        }
        if (thread == 0) {
            const real* h = n_smoothings % 2 ? smoothed : histogram;
            real highest = 0;
            for (int bin = 0; bin < n_bins; ++bin) highest = larger(highest, h[bin]);
            int count = 0;
            for (int bin = 0; bin < n_bins && highest > 0; ++bin) {
                const real before = h[bin == 0 ? n_bins - 1 : bin - 1], after = h[bin == n_bins - 1 ? 0 : bin + 1];
                if (h[bin] < c_max * highest || before > h[bin] || after > h[bin]) continue;
                const real bend = 2 * (before + after - 2 * h[bin]);
                const real fit = bend < 0 ? (before - after) / bend : real(0);  // flat: the bin's own angle
                real angle = (real(bin) + fit + bin_centre) * TWO_PI / real(n_bins);
                if (angle > PI) angle -= TWO_PI;
                angles[at * n_bins + count++] = angle;
            }
            if (count == 0) angles[at * n_bins + count++] = 0;  // a patch without any gradient
            further[at] = count - 1;
        }
        __syncthreads();
    }
}

// The features: each keypoint with its first orientation, then, keypoint by keypoint, those with their further ones.
//
//     keypoints, length, capacity, angles, further   as in assign_orientations
//     offsets    (images, capacity)  where the further ones of each begin among the features
//     total      (images,)           features, 0 if there is no room for all
//     features   (images, capacity)  for each, which candidate it is of
//     orientations (images, capacity)   radians
KERNEL spread_orientations(const int* __restrict__ keypoints, const int* __restrict__ length, const int capacity,
                           const real* __restrict__ angles, const int n_bins, const int* __restrict__ further,
                           const int* __restrict__ offsets, const int* __restrict__ total, int* __restrict__ features,
                           real* __restrict__ orientations) {
    const long long first = (long long)blockIdx.z * capacity;
    if (total[blockIdx.z] == 0) return;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < length[blockIdx.z]; i += gridDim.x * blockDim.x) {
        const real* of_keypoint = angles + (first + i) * n_bins;
        for (int k = 0; k <= further[first + i]; ++k) {
            const long long to = first + (k == 0 ? i : offsets[first + i] + k - 1);
            features[to] = keypoints[first + i];
            orientations[to] = of_keypoint[k];
        }
    }
}

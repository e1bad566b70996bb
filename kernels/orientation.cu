// Reference orientations of the keypoints (Otero & Delbracio 2014, Alg. 11).
#include "window.cuh"
#include "work_list.cuh"

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
// that a bound of the patch's gradients gives, so they do not depend on the order in which threads come.
//
//     levels     flat                all octaves' levels, images stride samples apart; LANES samples of room at
//                                    both ends
//     octaves    (n_octaves, 8)      see octave.cuh
//     keypoints  (images, capacity)  for each, which candidate it is
//     length     (images,)           number of keypoints
//     counter    (images,)           of those taken; 0 before and afterwards
//     positions  (images, capacity, 2)   the candidates' row, column, input pixels
//     sigmas     (images, capacity)  input pixels
//     in_octave, in_scale (images, capacity)   octave, and scale index within it
//     delta_min                      distance of the first octave's samples, input pixels
//     bin_centre                     bins
//     further    (images, capacity)  number of orientations after the first
//     angles     (images, capacity, n_bins)   the orientations, radians in (-pi, pi], in the order of their bins
KERNEL assign_orientations(const real* __restrict__ levels, const long long stride,
                           const long long* __restrict__ octaves, const int* __restrict__ keypoints,
                           const int* __restrict__ length, int* __restrict__ counter, const int capacity,
                           const real* __restrict__ positions, const real* __restrict__ sigmas,
                           const int* __restrict__ in_octave, const int* __restrict__ in_scale, const real delta_min,
                           const real lambda_ori, const int n_bins, const int n_smoothings, const real c_max,
                           const real bin_centre, int* __restrict__ further, real* __restrict__ angles) {
    __shared__ fixed sums[MAX_BINS];
    __shared__ real histogram[MAX_BINS], smoothed[MAX_BINS];
    __shared__ real row_weights[PATCH], col_weights[PATCH];
    __shared__ int is_peak[MAX_BINS];
    __shared__ int n_peaks, taken;
    __shared__ fixed steepest, highest;  // the bits of a positive number, which sort as the number does
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, n_threads = blockDim.x * blockDim.y;
    while (true) {
        const int keypoint = take(&counter[blockIdx.z], length[blockIdx.z], &taken);
        if (keypoint >= length[blockIdx.z]) return;
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

        // the weights of all samples add up to no more: a Gaussian's along a line to its integral and its largest
        const real along = 1 + root(TWO_PI) * lambda_ori * sigma, all_weights = along * along;
        const real per_angle = real(n_bins) / TWO_PI, falloff = -1 / (2 * (lambda_ori * sigma) * (lambda_ori * sigma));

        real bound = bound_of_gradients(row_0, row_1 + 1, &steepest, [&](int row, real* best) {
            largest_gradients(level, octave, row, col_0, col_1 + 1, best);
        });
        for (bool fits = false; !fits;) {
            const real scale = scale_of(fixed_exponent(all_weights, bound));
            for (int bin = thread; bin < n_bins; bin += n_threads) sums[bin] = 0;
            fixed seen = 0;
            for_each_patch(
                row_0, row_1 + 1, col_0, col_1 + 1, [&](int patch_row, int patch_col, int end_row, int end_col) {
                    gaussian_weights(patch_row, end_row, centre_row, falloff, thread, n_threads, row_weights);
                    gaussian_weights(patch_col, end_col, centre_col, falloff, thread, n_threads, col_weights);
                    __syncthreads();
                    Walk walk(patch_row, end_row, patch_col, end_col);
                    int held_bin = 0;  // a GPU's thread holds what its samples give while they are of one bin
                    fixed held = 0;
                    while (true) {
                        int count = 0;
                        real by_row[STRIP], by_col[STRIP], near[STRIP];
                        while (count <= STRIP - SPAN && walk.next([](int, int*, int*) {})) {
                            const real row_weight = row_weights[walk.row - patch_row] * scale;
                            const real* weights = col_weights + (walk.col - patch_col);
                            prefetch_row(level, octave, walk.row + 8, walk.col, walk.count);
                            gradients_at(level, octave, walk.row, walk.col, walk.count, by_row + count, by_col + count);
                            VECTORIZE
                            for (int lane = 0; lane < whole_vectors(walk.count); ++lane)
                                near[count + lane] = row_weight * weights[lane];
                            count += walk.count;
                        }
                        if (count == 0) break;
                        fixed weight[STRIP];
                        int bin[STRIP];
                        VECTORIZE
                        for (int i = 0; i < whole_vectors(count); ++i) {
                            const real steep = root(by_row[i] * by_row[i] + by_col[i] * by_col[i]);
                            seen = larger(seen, i < count ? bits_of(steep) : fixed(0));
                            real theta = arctangent(by_col[i], by_row[i]);
                            theta = theta < 0 ? theta + TWO_PI : theta;
                            real place = theta * per_angle + real(0.5);
                            place = place >= real(n_bins) ? place - real(n_bins) : place;
                            bin[i] = int(place);
                            weight[i] = to_fixed(smaller(steep, bound) * near[i]);
                        }
                        for (int i = 0; i < count; ++i) {
                            if (LANES == 1 && bin[i] == held_bin) {
                                held += weight[i];
                                continue;
                            }
                            add_to(&sums[held_bin], held);
                            held_bin = bin[i];
                            held = weight[i];
                        }
                    }
                    add_to(&sums[held_bin], held);
                    __syncthreads();
                });
            fits = !exceeded(seen, &steepest, &bound);
        }

        for (int bin = thread; bin < n_bins; bin += n_threads) histogram[bin] = real(sums[bin]);
        if (thread == 0) highest = n_peaks = 0;
        __syncthreads();
        for (int turn = 0; turn < n_smoothings; ++turn) {
            const real* from = turn % 2 ? smoothed : histogram;
            real* to = turn % 2 ? histogram : smoothed;
            auto smooth = [&](int before, int bin, int after) {
                const real third = real(1) / 3;
                to[bin] = from[before] * third + from[bin] * third + from[after] * third;
            };
            VECTORIZE
            for (int bin = 1 + thread; bin < n_bins - 1; bin += n_threads) smooth(bin - 1, bin, bin + 1);
            if (thread == 0) smooth(n_bins - 1, 0, 1);
            if (thread == n_threads - 1) smooth(n_bins - 2, n_bins - 1, 0);
            __syncthreads();
        }
        const real* h = n_smoothings % 2 ? smoothed : histogram;
        fixed most = 0;
        VECTORIZE
        for (int bin = thread; bin < n_bins; bin += n_threads) most = larger(most, bits_of(h[bin]));
        atomicMax_block(&highest, most);
        __syncthreads();
        for (int bin = thread; bin < n_bins; bin += n_threads) {
            const real before = h[bin == 0 ? n_bins - 1 : bin - 1], after = h[bin == n_bins - 1 ? 0 : bin + 1];
            is_peak[bin] =
                (h[bin] >= c_max * from_bits(highest)) & (before <= h[bin]) & (after <= h[bin]) & (highest > 0);
            if (is_peak[bin]) atomicAdd_block(&n_peaks, 1);
        }
        __syncthreads();
        for (int bin = thread; bin < n_bins; bin += n_threads) {
            if (!is_peak[bin]) continue;
            int rank = 0;
            for (int other = 0; other < bin; ++other) rank += is_peak[other];
            const real before = h[bin == 0 ? n_bins - 1 : bin - 1], after = h[bin == n_bins - 1 ? 0 : bin + 1];
            const real bend = 2 * (before + after - 2 * h[bin]);
            const real fit = bend < 0 ? (before - after) / bend : real(0);  // flat: the bin's own angle
            real angle = (real(bin) + fit + bin_centre) * TWO_PI / real(n_bins);
            if (angle > PI) angle -= TWO_PI;
            angles[at * n_bins + rank] = angle;
        }
        if (thread == 0) {
            if (n_peaks == 0) angles[at * n_bins] = 0;  // a patch without any gradient
            further[at] = larger(n_peaks, 1) - 1;
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

// Reference orientations of the keypoints (Otero & Delbracio 2014, Alg. 11).
//
// A histogram of n_bins directions over the patch |row - y|, |col - x| <= 3 lambda_ori sigma: each sample adds its
// gradient's magnitude, weighted by exp(-d^2 / (2 (lambda_ori sigma)^2)), to the bin
//
//     floor(n_bins theta / 2 pi + 1/2) mod n_bins,   theta = atan2(gradient by column, gradient by row).
//
// The histogram is smoothed n_smoothings times by (1/3, 1/3, 1/3), as a circle. Each bin that is not less than its
// neighbours and at least c_max times the highest gives an orientation, refined by a parabola through the three:
//
//     2 pi (bin + (h_- - h_+) / (2 (h_- + h_+ - 2 h)) + bin_centre) / n_bins
//
// A bin's centre is at bin_centre = 0; scikit-image and IPOL take it to be at 1/2. Sums are fixed-point, so they do not
// depend on the order in which threads add to them.
#include "shaped_window.cuh"
#include "held_sums.cuh"
#include "work_list.cuh"

// An angle in [0, 2 pi) in units of the bins. In double by scikit-image's operations: on regular patterns many angles
// lie at the border of two bins, where rounding decides.
DEVICE float in_bins(float theta, float n_bins) { return theta * (n_bins / float(TWO_PI)); }
DEVICE double in_bins(double theta, double n_bins) { return theta / TWO_PI * n_bins; }

// The patch of a keypoint without an affine shape: the whole area. Its interface is that of ShapedWindow.
struct Patch {
    real radius, falloff;

    DEVICE_MEMBER Area area(const Frame& frame, int includes_end) const {
        return area_of(frame, radius, radius, includes_end);
    }

    DEVICE_MEMBER real elongation() const { return 1; }

    DEVICE_MEMBER void clip(real, int*, int*) const {}

    DEVICE_MEMBER void place(int, real, real) {}

    DEVICE_MEMBER void normalize(Samples&) const {}
};

DEVICE Patch patch_of(const Frame&, Circle, real radius, real spread) { return {radius, -1 / (2 * spread * spread)}; }
DEVICE ShapedWindow patch_of(const Frame& frame, Shape shape, real radius, real spread) {
    return window_of(frame, shape, radius, spread, 0);
}

// The histogram of a patch while samples are added; `accumulate` uses it.
template <typename Window>
struct Directions {
    Window& window;
    fixed* sums;
    int n_bins;
    HeldSums held;

    DEVICE_MEMBER Directions(Window& window, fixed* sums, int n_bins)
        : window(window), sums(sums), n_bins(n_bins), held(sums) {}

    DEVICE_MEMBER void clear() {
        const int thread = threadIdx.y * blockDim.x + threadIdx.x, n_threads = blockDim.x * blockDim.y;
        for (int bin = thread; bin < n_bins; bin += n_threads) sums[bin] = 0;
    }

    DEVICE_MEMBER void clip(int row, int* first, int* last) const { window.clip(real(row), first, last); }

    DEVICE_MEMBER void place(int i, real row, real col) { window.place(i, row, col); }

    DEVICE_MEMBER void add(Samples& samples, real bound, fixed* steepest) {
        window.normalize(samples);
        PerSample<int> bin;
        PerSample<fixed> weight;
        fixed seen = *steepest;
        for_each_sample(samples.count, [&](int i) INLINED {
            const real by_row = samples.by_row[i], by_col = samples.by_col[i];
            const real steep = root(by_row * by_row + by_col * by_col);
            seen = larger(seen, i < samples.count ? bits_of(steep) : fixed(0));
            real theta = arctangent(by_col, by_row);
            theta = theta < 0 ? theta + TWO_PI : theta;
            real place = in_bins(theta, real(n_bins)) + real(0.5);
            place = place >= real(n_bins) ? place - real(n_bins) : place;
            bin[i] = int(place);
            weight[i] = to_fixed(smaller(steep, bound) * samples.weight[i]);
        });
        *steepest = seen;
        for_each_sample_in_turn(samples.count, [&](int i) INLINED { held.add(bin[i], weight[i]); });
    }

    DEVICE_MEMBER void flush() { held.flush(); }
};

// Smooths the histogram n_smoothings times; returns the array that holds the result, `histogram` or `smoothed`.
DEVICE const real* smooth(real* histogram, real* smoothed, int n_bins, int n_smoothings) {
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, n_threads = blockDim.x * blockDim.y;
    for (int turn = 0; turn < n_smoothings; ++turn) {
        const real* from = turn % 2 ? smoothed : histogram;
        real* to = turn % 2 ? histogram : smoothed;
        const auto smooth_bin = [&](int before, int bin, int after) {
            const real third = real(1) / 3;
            to[bin] = from[before] * third + from[bin] * third + from[after] * third;
        };
        VECTORIZE
        for (int bin = 1 + thread; bin < n_bins - 1; bin += n_threads) smooth_bin(bin - 1, bin, bin + 1);
        for (int end = thread; end < 2; end += n_threads)  // the first bin and the last are neighbours
            smooth_bin(end == 0 ? n_bins - 1 : n_bins - 2, end == 0 ? 0 : n_bins - 1, end == 0 ? 1 : 0);
        __syncthreads();
    }
    return n_smoothings % 2 ? smoothed : histogram;
}

// Shared memory of `find_peaks`.
struct Peaks {
    int is_peak[MAX_BINS], n_peaks;
    fixed highest;  // bits of the highest bin's value
};

// The angles of a smoothed histogram's `most` highest peaks, in the order of their bins; returns their number.
DEVICE int find_peaks(const real* h, int n_bins, real c_max, int most, real bin_centre, Peaks& peaks,
                      real* __restrict__ angles) {
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, n_threads = blockDim.x * blockDim.y;
    fixed height = 0;
    VECTORIZE
    for (int bin = thread; bin < n_bins; bin += n_threads) height = larger(height, bits_of(h[bin]));
    atomicMax_block(&peaks.highest, height);
    __syncthreads();
    const real highest = from_bits(peaks.highest);
    const auto before = [=](int bin) { return h[bin == 0 ? n_bins - 1 : bin - 1]; };
    const auto after = [=](int bin) { return h[bin == n_bins - 1 ? 0 : bin + 1]; };
    for (int bin = thread; bin < n_bins; bin += n_threads) {
        peaks.is_peak[bin] =
            (h[bin] >= c_max * highest) & (before(bin) <= h[bin]) & (after(bin) <= h[bin]) & (highest > 0);
        if (peaks.is_peak[bin]) atomicAdd_block(&peaks.n_peaks, 1);
    }
    __syncthreads();
    const auto is_kept = [&](int bin) {  // fewer than `most` peaks are higher; of equals, the first one is
        if (!peaks.is_peak[bin] || peaks.n_peaks <= most) return peaks.is_peak[bin] != 0;
        int higher = 0;
        for (int other = 0; other < n_bins; ++other)
            higher += peaks.is_peak[other] && (h[other] > h[bin] || (h[other] == h[bin] && other < bin));
        return higher < most;
    };
    for (int bin = thread; bin < n_bins; bin += n_threads) {
        if (!is_kept(bin)) continue;
        int rank = 0;
        for (int other = 0; other < bin; ++other) rank += is_kept(other);
        const real bend = 2 * (before(bin) + after(bin) - 2 * h[bin]);
        const real fit = bend < 0 ? (before(bin) - after(bin)) / bend : real(0);  // flat: the bin's own angle
        const real angle = (real(bin) + fit + bin_centre) * TWO_PI / real(n_bins);
        angles[rank] = angle > PI ? angle - TWO_PI : angle;
    }
    return smaller(peaks.n_peaks, most);
}

// Assigns orientations to keypoints. A block takes one keypoint after the other from the list.
//
//     levels     flat                all octaves' levels, images stride samples apart; readable one vector beyond both
//                                    ends
//     octaves    (n_octaves, 8)      see octave.cuh
//     keypoints  (images, capacity)  index of each keypoint's candidate
//     length     (images,)           number of keypoints
//     counter    (images,)           number of keypoints taken by blocks; 0 before and afterwards
//     positions  (images, capacity, 2)   row and column of the candidates, input pixels
//     sigmas     (images, capacity)  input pixels
//     in_octave, in_scale (images, capacity)   octave, and scale index within it
//     shapes     (images, capacity, 2, 2)   affine shapes of the candidates; not read if SHAPED is 0
//     delta_min                      sampling distance of the first octave, input pixels
//     lambda_ori                     deviation of the Gaussian weight, sigmas
//     c_max                          least height of a peak, of the highest
//     max_orientations               of a keypoint: those of the highest peaks
//     bin_centre                     0 or 1/2, bins
//     further    (images, capacity)  number of orientations after the first
//     angles     (images, capacity, n_bins)   the orientations, radians in (-pi, pi], in the order of their bins
KERNEL_OF(SHAPED) assign_orientations(const real* __restrict__ levels, const long long stride,
                                      const long long* __restrict__ octaves, const int* __restrict__ keypoints,
                                      const int* __restrict__ length, int* __restrict__ counter, const int capacity,
                                      const real* __restrict__ positions, const real* __restrict__ sigmas,
                                      const int* __restrict__ in_octave, const int* __restrict__ in_scale,
                                      const real* __restrict__ shapes, const real delta_min, const real lambda_ori,
                                      const int n_bins, const int n_smoothings, const real c_max,
                                      const int max_orientations, const real bin_centre, int* __restrict__ further,
                                      real* __restrict__ angles) {
    __shared__ fixed sums[MAX_BINS];
    __shared__ real histogram[MAX_BINS], smoothed[MAX_BINS];
    __shared__ WindowTables tables;
    __shared__ Peaks peaks;
    __shared__ int taken;
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, n_threads = blockDim.x * blockDim.y;
    const long long first = (long long)blockIdx.z * capacity;
    while (true) {
        const int keypoint = take(&counter[blockIdx.z], length[blockIdx.z], &taken);
        if (keypoint >= length[blockIdx.z]) return;
        const long long at = first + keypoint, i = first + keypoints[at];
        const Frame frame = frame_of(levels + blockIdx.z * stride, octaves, in_octave[i], in_scale[i],
                                     positions + 2 * i, sigmas[i], delta_min);
        const real spread = lambda_ori * frame.sigma;
        auto window = patch_of(frame, shape_at<SHAPED>(shapes, i), 3 * lambda_ori * frame.sigma, spread);
        // a Gaussian's values along a line add up to no more than its integral and its largest
        const real along = 1 + root(TWO_PI) * lambda_ori * frame.sigma;
        Directions<decltype(window)> directions(window, sums, n_bins);
        accumulate(frame, window.area(frame, 1), window.falloff, window.elongation() * along * along, tables,
                   directions);
        for (int bin = thread; bin < n_bins; bin += n_threads) histogram[bin] = real(sums[bin]);
        if (thread == 0) peaks.highest = peaks.n_peaks = 0;
        __syncthreads();
        const real* h = smooth(histogram, smoothed, n_bins, n_smoothings);
        const int n_peaks = find_peaks(h, n_bins, c_max, max_orientations, bin_centre, peaks, angles + at * n_bins);
        if (thread == 0) {
            if (n_peaks == 0) angles[at * n_bins] = 0;  // a patch without any gradient
            further[at] = larger(n_peaks, 1) - 1;
        }
    }
}

// Lists the features: all keypoints with their first orientation, then, keypoint by keypoint, the further orientations.
//
//     keypoints, length, capacity, angles, further   as in assign_orientations
//     offsets    (images, capacity)  where the further orientations of each keypoint begin in the list of features
//     total      (images,)           number of features; 0 if they exceed the capacity
//     features   (images, capacity)  index of each feature's candidate
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

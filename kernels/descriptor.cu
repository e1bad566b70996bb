// Descriptors of the keypoints (Otero & Delbracio 2014, Alg. 12; Lowe 2004, section 6).
//
// A descriptor is n_hist x n_hist histograms of n_ori gradient directions over a square window that is turned by the
// keypoint's orientation; it tells keypoints apart whatever the image's rotation, scale and brightness. Each sample
// adds
//
//     |gradient| exp(-d^2 / (2 (lambda_descr sigma)^2))
//
// to the two nearest histograms by (turned) row, the two by column and the two nearest directions, in proportion to how
// near they are. Then values above `saturation` times the norm are cut, and the whole becomes bytes,
//
//     min(floor(scaled_norm value / norm), 255),      or, rooted (RootSIFT, Arandjelovic & Zisserman 2012),
//     min(floor(scaled_norm sqrt(value / sum of the values) + 1/2), 255).
//
// A pooled descriptor (DSP-SIFT, Dong & Soatto 2015) is the mean of the histograms of several windows around the
// keypoint, f sigma in size for several factors f, each in the level that fits its size:
//
//     mean over f of h_f / (sum of h_f)
//
// Every size counts the same, whatever its contrast. The mean is cut, scaled and rounded as above.
//
// The window of a keypoint with an affine shape is a square in normalized coordinates, and so are its gradients.
//
// Sums are fixed-point, so they do not depend on the order in which threads add to them.
#include "histograms.cuh"
#include "work_list.cuh"

#define SUM_LANES 16  // partial sums of a descriptor's values, whatever the number of threads

// Cuts the values at `limit`; returns the sum of the values, or of their squares: SUM_LANES partial sums, added by one
// tree.
DEVICE real cut_and_sum(real* values, int n_values, real limit, bool squared, real* lane_sums) {
    static_assert(SUM_LANES == 16);
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, n_threads = blockDim.x * blockDim.y;
    VECTORIZE
    for (int lane = thread; lane < SUM_LANES; lane += n_threads) lane_sums[lane] = 0;
    for (int first = 0; first < n_values; first += SUM_LANES) {
        VECTORIZE
        for (int lane = thread; lane < smaller(SUM_LANES, n_values - first); lane += n_threads) {
            const real value = smaller(values[first + lane], limit);
            values[first + lane] = value;
            lane_sums[lane] += squared ? value * value : value;
        }
    }
    __syncthreads();
    real sums[8];
    UNROLL
    for (int i = 0; i < 8; ++i) sums[i] = lane_sums[i] + lane_sums[i + 8];
    UNROLL
    for (int i = 0; i < 4; ++i) sums[i] += sums[i + 4];
    __syncthreads();
    return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

// The values as bytes (Alg. 12, lines 15 to 17): cut at `saturation` times their norm, then scaled to `scaled_norm`.
DEVICE void quantize(real* values, int n_values, real saturation, real scaled_norm, bool rooted, real* lane_sums,
                     unsigned char* bytes) {
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, n_threads = blockDim.x * blockDim.y;
    const real no_limit = scale_of(Bits<real>::sum_bits + 3);
    const real norm = root(cut_and_sum(values, n_values, no_limit, true, lane_sums));
    const real sum = cut_and_sum(values, n_values, saturation * norm, !rooted, lane_sums);
    const real total = rooted ? sum : root(sum), divisor = total > 0 ? total : real(1);
    VECTORIZE
    for (int v = thread; v < n_values; v += n_threads) {
        const real value =
            rooted ? scaled_norm * root(values[v] / divisor) + real(0.5) : scaled_norm * values[v] / divisor;
        bytes[v] = (unsigned char)smaller(value, real(255));
    }
}

// The orders of a descriptor's values. scikit-image: histograms by turned row, then turned column, where rows lie along
// the keypoint's orientation. UBC (Lowe, OpenCV, COLMAP): by turned y, then turned x, where x lies along it. VLFeat: as
// UBC, with the directions of each histogram in the opposite sense, from the same first one.
#define LAYOUT_SCIKIT_IMAGE 0
#define LAYOUT_UBC 1
#define LAYOUT_VLFEAT 2

// Copies a descriptor out in the order of `layout`. Each thread copies the bytes that it has set in `quantize`.
DEVICE void write_descriptor(const unsigned char* bytes, int n_hist, int n_ori, int layout,
                             unsigned char* __restrict__ out) {
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, n_threads = blockDim.x * blockDim.y;
    const int n_values = n_hist * n_hist * n_ori;
    if (layout == LAYOUT_SCIKIT_IMAGE) {
        VECTORIZE
        for (int v = thread; v < n_values; v += n_threads) out[v] = bytes[v];
        return;
    }
    for (int v = thread; v < n_values; v += n_threads) {
        const int bin = v / n_ori, direction = v % n_ori;
        const int to = (n_hist - 1 - bin % n_hist) * n_hist + bin / n_hist;
        const int opposite = layout == LAYOUT_VLFEAT && direction > 0 ? n_ori - direction : direction;
        out[to * n_ori + opposite] = bytes[v];
    }
}

// Describes features. A block takes one feature after the other from the list.
//
//     levels     flat                all octaves' levels, images stride samples apart; readable one vector beyond both
//                                    ends
//     octaves    (n_octaves, 8)      see octave.cuh
//     features   (images, capacity)  index of each feature's candidate
//     length     (images,)           number of features
//     counter    (images,)           number of features taken by blocks; 0 before and afterwards
//     orientations (images, capacity)    of the features, radians
//     positions  (images, capacity, 2)   row and column of the candidates, input pixels
//     sigmas     (images, capacity)  input pixels
//     in_octave, in_scale (images, capacity)   octave, and scale index within it
//     shapes     (images, capacity, 2, 2)   affine shapes of the candidates; not read if SHAPED is 0
//     delta_min                      sampling distance of the first octave, input pixels
//     rooted                         0 or 1
//     lambda_descr                   deviation of the Gaussian weight, sigmas
//     saturation                     largest value, of the norm
//     scaled_norm                    norm of the bytes
//     layout                         order of a descriptor's values: one of the three above
//     descriptors (images, capacity, n_hist n_hist n_ori)
KERNEL_OF(SHAPED) describe(const real* __restrict__ levels, const long long stride,
                           const long long* __restrict__ octaves, const int* __restrict__ features,
                           const int* __restrict__ length, int* __restrict__ counter, const int capacity,
                           const real* __restrict__ orientations, const real* __restrict__ positions,
                           const real* __restrict__ sigmas, const int* __restrict__ in_octave,
                           const int* __restrict__ in_scale, const real* __restrict__ shapes, const real delta_min,
                           const real lambda_descr, const int n_hist, const int n_ori, const real saturation,
                           const real scaled_norm, const int rooted, const int layout,
                           unsigned char* __restrict__ descriptors) {
    __shared__ fixed sums[MAX_SUMS];
    __shared__ real values[MAX_VALUES], lane_sums[SUM_LANES];
    __shared__ unsigned char bytes[MAX_VALUES];
    __shared__ WindowTables tables;
    __shared__ int taken;
    const long long first = (long long)blockIdx.z * capacity;
    while (true) {
        const int feature = take(&counter[blockIdx.z], length[blockIdx.z], &taken);
        if (feature >= length[blockIdx.z]) return;
        const long long at = first + feature, i = first + features[at];
        const Frame frame = frame_of(levels + blockIdx.z * stride, octaves, in_octave[i], in_scale[i],
                                     positions + 2 * i, sigmas[i], delta_min);
        const Grid grid(n_hist, n_ori, lambda_descr, frame.sigma);
        fill_histograms(frame, shape_at<SHAPED>(shapes, i), grid, orientations[at], sums, tables, values);
        quantize(values, grid.n_values(), saturation, scaled_norm, rooted, lane_sums, bytes);
        write_descriptor(bytes, n_hist, n_ori, layout, descriptors + at * grid.n_values());
    }
}

// Adds the histograms of a window, divided by their sum, to `pooled`. A window without a gradient adds nothing.
DEVICE void add_window(real* values, int n_values, real* lane_sums, real* pooled) {
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, n_threads = blockDim.x * blockDim.y;
    const real no_limit = scale_of(Bits<real>::sum_bits + 3);
    const real sum = cut_and_sum(values, n_values, no_limit, false, lane_sums), divisor = sum > 0 ? sum : real(1);
    VECTORIZE
    for (int v = thread; v < n_values; v += n_threads) pooled[v] += values[v] / divisor;
}

// Describes features by pooled histograms. What has no comment is as for `describe`.
//
//     factors    (n_factors,)        sizes of the windows, of the keypoints' sigmas
//     window_levels (n_factors, n_octaves, n_levels, 2)  for a window of a factor around a keypoint of an octave and a
//                                    scale: the octave and scale of its level; an octave below 0 leaves the window out
//     n_levels                       levels of an octave
//     carried    (images, capacity, n_hist n_hist n_ori)  sums of the histograms of windows that are in other octaves;
//                                    not read or written if `resumes` is 0 and `ends` is 1
//     resumes                        1: go on from `carried`
//     ends                           1: make descriptors of the sums; 0: write the sums to `carried`
KERNEL_OF(SHAPED) describe_pooled(const real* __restrict__ levels, const long long stride,
                                  const long long* __restrict__ octaves, const int* __restrict__ features,
                                  const int* __restrict__ length, int* __restrict__ counter, const int capacity,
                                  const real* __restrict__ orientations, const real* __restrict__ positions,
                                  const real* __restrict__ sigmas, const int* __restrict__ in_octave,
                                  const int* __restrict__ in_scale, const real* __restrict__ shapes,
                                  const real delta_min, const real* __restrict__ factors, const int n_factors,
                                  const int* __restrict__ window_levels, const int n_octaves, const int n_levels,
                                  const real lambda_descr, const int n_hist, const int n_ori, const real saturation,
                                  const real scaled_norm, const int rooted, const int layout,
                                  real* __restrict__ carried, const int resumes, const int ends,
                                  unsigned char* __restrict__ descriptors) {
    __shared__ fixed sums[MAX_SUMS];
    __shared__ real values[MAX_VALUES], pooled[MAX_POOLED], lane_sums[SUM_LANES];
    __shared__ unsigned char bytes[MAX_VALUES];
    __shared__ WindowTables tables;
    __shared__ int taken;
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, n_threads = blockDim.x * blockDim.y;
    const int n_values = n_hist * n_hist * n_ori;
    const long long first = (long long)blockIdx.z * capacity;
    while (true) {
        const int feature = take(&counter[blockIdx.z], length[blockIdx.z], &taken);
        if (feature >= length[blockIdx.z]) return;
        const long long at = first + feature, i = first + features[at];
        for (int v = thread; v < n_values; v += n_threads) pooled[v] = resumes ? carried[at * n_values + v] : real(0);
        ONE_BY_ONE
        for (int k = 0; k < n_factors; ++k) {
            const int* level = window_levels + 2 * ((k * n_octaves + in_octave[i]) * n_levels + in_scale[i]);
            if (level[0] < 0) continue;
            const Frame frame = frame_of(levels + blockIdx.z * stride, octaves, level[0], level[1], positions + 2 * i,
                                         factors[k] * sigmas[i], delta_min);
            const Grid grid(n_hist, n_ori, lambda_descr, frame.sigma);
            fill_histograms(frame, shape_at<SHAPED>(shapes, i), grid, orientations[at], sums, tables, values);
            add_window(values, n_values, lane_sums, pooled);
        }
        __syncthreads();
        if (ends) {
            quantize(pooled, n_values, saturation, scaled_norm, rooted, lane_sums, bytes);
            write_descriptor(bytes, n_hist, n_ori, layout, descriptors + at * n_values);
        } else {
            for (int v = thread; v < n_values; v += n_threads) carried[at * n_values + v] = pooled[v];
        }
    }
}

// The features of a batch, packed into one block of bytes, so that one copy brings them to the host.
#include "arithmetic.cuh"

#define ALIGNMENT 256  // bytes: each image's features begin at a multiple

// The bytes from the first image's features to those of image z.
DEVICE long long bytes_before(const int* __restrict__ lengths, const int* __restrict__ unfit, int z, int entry_bytes) {
    long long bytes = 0;
    for (int i = 0; i < z; ++i)
        if (!unfit[i]) bytes += (lengths[i] * (long long)entry_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return bytes;
}

// Copies the descriptors of n features, which lie next to each other, in words of type T.
template <typename T>
DEVICE void copy_descriptors(const unsigned char* __restrict__ from, long long n_words,
                             unsigned char* __restrict__ to) {
    const T* words = reinterpret_cast<const T*>(from);
    T* out = reinterpret_cast<T*>(to);
    const long long share = (n_words + gridDim.x - 1) / gridDim.x;
    const long long begin = blockIdx.x * share, end = smaller(begin + share, n_words);
    VECTORIZE
    for (long long i = begin + threadIdx.x; i < end; i += blockDim.x) out[i] = words[i];
}

// Packs the lists' counts, and the features of each image z, array after array:
//
//     positions (n, 2), sigmas, orientations, responses (n,) and shapes (n, 2, 2) of real, octaves, scales (n,) of
//     int32, descriptors
//
// An unfit image has no features.
//
//     counts   (n_counts, images)    see gpusift/stages/feature_lists.py
//     length   (images,)             number of features
//     unfit    (images,)             0 if the image is fit
//     features (images, capacity)    index of each feature's candidate
//     orientations, descriptors (images, capacity, ...)        of the features
//     positions, sigmas, responses, in_octave, in_scale (images, capacity, ...)    of the candidates
//     shapes   (images, capacity, 2, 2)  of the candidates; not read if `has_shapes` is 0
//     has_shapes                     0 or 1
//     move                           added to positions, input pixels
//     n_values                       length of a descriptor, 0: none
//     header   (n_counts + 1, images)    the counts, then `unfit`
//     out      flat                  the features, image after image, each from a multiple of 256 bytes on
KERNEL collect(const int* __restrict__ counts, const int n_counts, const int* __restrict__ length,
               const int* __restrict__ unfit, const int capacity, const int* __restrict__ features,
               const real* __restrict__ orientations, const unsigned char* __restrict__ descriptors,
               const real* __restrict__ positions, const real* __restrict__ sigmas, const real* __restrict__ responses,
               const int* __restrict__ in_octave, const int* __restrict__ in_scale, const real* __restrict__ shapes,
               const int has_shapes, const real move, const int n_values, int* __restrict__ header,
               unsigned char* __restrict__ out) {
    const int z = blockIdx.z, n_images = gridDim.z;
    if (blockIdx.x == 0)
        for (int i = threadIdx.x; i <= n_counts; i += blockDim.x)
            header[i * n_images + z] = i < n_counts ? counts[i * n_images + z] : unfit[z];
    const long long n = unfit[z] ? 0 : length[z], list = (long long)z * capacity;
    const int n_reals = has_shapes ? 9 : 5, entry_bytes = n_reals * sizeof(real) + 2 * sizeof(int) + n_values;
    real* reals = reinterpret_cast<real*>(out + bytes_before(length, unfit, z, entry_bytes));
    int* integers = reinterpret_cast<int*>(reals + n_reals * n);
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        const long long feature = list + i, candidate = list + features[feature];
        reals[2 * i] = positions[2 * candidate] + move;
        reals[2 * i + 1] = positions[2 * candidate + 1] + move;
        reals[2 * n + i] = sigmas[candidate];
        reals[3 * n + i] = orientations[feature];
        reals[4 * n + i] = responses[candidate];
        for (int k = 0; k < n_reals - 5; ++k) reals[5 * n + 4 * i + k] = shapes[4 * candidate + k];
        integers[i] = in_octave[candidate];
        integers[n + i] = in_scale[candidate];
    }
    const unsigned char* from = descriptors + list * n_values;
    unsigned char* values = reinterpret_cast<unsigned char*>(integers + 2 * n);
    if (n_values % sizeof(int)) copy_descriptors<unsigned char>(from, n * n_values, values);
    if (n_values % sizeof(int) == 0) copy_descriptors<int>(from, n * n_values / sizeof(int), values);
}

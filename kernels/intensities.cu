// Images as intensities: what skimage.util.img_as_float does.
#include "arithmetic.cuh"

// The dtypes of images, as gpusift/stages/intensities.py numbers them.
#define UINT8 0
#define INT8 1
#define UINT16 2
#define INT16 3
#define UINT32 4
#define INT32 5
#define UINT64 6
#define INT64 7
#define FLOAT32 8
#define FLOAT64 9

// Converts a row of integers: times `unit`, at least -1.
template <typename T>
DEVICE void scale_row(const unsigned char* __restrict__ image, long long first, int cols, double unit,
                      real* __restrict__ out) {
    const T* row = reinterpret_cast<const T*>(image) + first;
    VECTORIZE
    for (int col = threadIdx.x; col < cols; col += blockDim.x) out[col] = real(larger(double(row[col]) * unit, -1.0));
}

// Copies a row of floats; returns whether a value is not finite or exceeds `largest` in magnitude. Such values become
// 0.
template <typename T>
DEVICE bool take_row(const unsigned char* __restrict__ image, long long first, int cols, double largest,
                     real* __restrict__ out) {
    const T* row = reinterpret_cast<const T*>(image) + first;
    int unfit = 0;
    VECTORIZE
    for (int col = threadIdx.x; col < cols; col += blockDim.x) {
        const T value = row[col];
        const bool fits = (value < 0 ? -value : value) <= T(largest);  // false for NaN
        out[col] = fits ? real(value) : real(0);
        unfit |= !fits;
    }
    return unfit;
}

// Empties the lists of an image, for the kernels after this one. The threads of the image's blocks share the rows.
DEVICE void empty_lists(int image, int n_images, int n_counts, int* __restrict__ counts, int n_rows,
                        int* __restrict__ row_counts) {
    const int first = blockIdx.x * blockDim.x + threadIdx.x, step = gridDim.x * blockDim.x;
    for (int i = first; i < n_counts; i += step) counts[i * n_images + image] = 0;
    for (int i = first; i < n_rows; i += step) row_counts[(long long)image * n_rows + i] = 0;
}

// Converts the images of a batch to intensities: integers are multiplied by a unit, 1 / the largest value of their
// dtype, and cut at -1; floats are copied. Also empties the lists of the batch. A block takes a row at a time.
//
//     images   flat                 (rows, cols) of its dtype for each image, image_bytes apart
//     dtypes   (images,)            one of those above
//     units    (images,)            factor of integers
//     largest                       largest magnitude of floats
//     out      flat                 (rows, cols) intensities for each image, `stride` samples apart
//     unfit    (images,)            increased for each row with a float that is not finite or exceeds `largest`
//     counts   (n_counts, images), row_counts (images, n_rows)    0 afterwards; see gpusift/stages/feature_lists.py
KERNEL intensities(const unsigned char* __restrict__ images, const long long image_bytes,
                   const int* __restrict__ dtypes, const int rows, const int cols, const double* __restrict__ units,
                   const double largest, real* __restrict__ out, const long long stride, int* __restrict__ unfit,
                   const int n_counts, int* __restrict__ counts, const int n_rows, int* __restrict__ row_counts) {
    const int z = blockIdx.z, dtype = dtypes[z];
    const unsigned char* image = images + z * image_bytes;
    const double unit = units[z];
    empty_lists(z, gridDim.z, n_counts, counts, n_rows, row_counts);
    for (int row = blockIdx.x; row < rows; row += gridDim.x) {
        const long long first = (long long)row * cols;
        real* to = out + z * stride + first;
        if (dtype == UINT8) scale_row<unsigned char>(image, first, cols, unit, to);
        if (dtype == INT8) scale_row<signed char>(image, first, cols, unit, to);
        if (dtype == UINT16) scale_row<unsigned short>(image, first, cols, unit, to);
        if (dtype == INT16) scale_row<short>(image, first, cols, unit, to);
        if (dtype == UINT32) scale_row<unsigned>(image, first, cols, unit, to);
        if (dtype == INT32) scale_row<int>(image, first, cols, unit, to);
        if (dtype == UINT64) scale_row<unsigned long long>(image, first, cols, unit, to);
        if (dtype == INT64) scale_row<long long>(image, first, cols, unit, to);
        bool some_unfit = false;
        if (dtype == FLOAT32) some_unfit = take_row<float>(image, first, cols, largest, to);
        if (dtype == FLOAT64) some_unfit = take_row<double>(image, first, cols, largest, to);
        if (some_unfit) atomicAdd(&unfit[z], 1);
    }
}

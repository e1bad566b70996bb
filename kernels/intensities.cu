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

// Converts an image to intensities: integers are multiplied by `unit`, 1 / the largest value of their type, and cut at
// -1; floats are copied. One block per row.
//
//     image    rows x cols of the dtype, in bytes
//     dtype                         one of those above
//     unit                          factor of integers
//     largest                       largest magnitude of floats
//     out      (rows, cols)         intensities
//     unfit    (1,)                 increased for each row with a float that is not finite or exceeds `largest`
KERNEL intensities(const unsigned char* __restrict__ image, const int rows, const int cols, const int dtype,
                   const double unit, const double largest, real* __restrict__ out, int* __restrict__ unfit) {
    for (int row = blockIdx.x; row < rows; row += gridDim.x) {
        const long long first = (long long)row * cols;
        real* to = out + first;
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
        if (some_unfit) atomicAdd(unfit, 1);
    }
}

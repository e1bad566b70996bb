// Samples side by side that are loaded and stored at once; for scale_space.cu and extrema.cu.
#pragma once
#include "arithmetic.cuh"

// Samples that a GPU loads, or stores, by one instruction.
struct alignas(16) AlignedSamples {
    real samples[ALIGNED];
};

// Begins to copy ALIGNED samples into shared memory. The thread has them there after `finish_copies`, the block after a
// barrier that follows. A GPU that can copies without registers, so that many copies of a thread are under way at once.
DEVICE void begin_copy(const real* __restrict__ from, real* __restrict__ to) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    const unsigned shared = unsigned(__cvta_generic_to_shared(to));
    UNROLL
    for (int byte = 0; byte < int(sizeof(AlignedSamples)); byte += 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
                     :
                     : "r"(shared + byte), "l"(reinterpret_cast<const char*>(from) + byte)
                     : "memory");
#else
    *reinterpret_cast<AlignedSamples*>(to) = *reinterpret_cast<const AlignedSamples*>(from);
#endif
}
DEVICE void finish_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" : : : "memory");
#endif
}

// The differences of n + 1 levels, each from the one after it, of `count` samples side by side. A GPU's threads take
// ALIGNED each, and ask for those of all levels before they use the first; there is room for what is too many.
template <int n>
DEVICE void subtract_samples(const real* const* from, int count, real* const* to) {
    if constexpr (COPIES_TILES) {
        AlignedSamples of_level[n + 1];
        UNROLL
        for (int k = 0; k <= n; ++k) of_level[k] = *reinterpret_cast<const AlignedSamples*>(from[k]);
        UNROLL
        for (int k = 0; k < n; ++k) {
            AlignedSamples difference;
            UNROLL
            for (int i = 0; i < ALIGNED; ++i)
                difference.samples[i] = of_level[k + 1].samples[i] - of_level[k].samples[i];
            *reinterpret_cast<AlignedSamples*>(to[k]) = difference;
        }
    } else {
        for (int k = 0; k < n; ++k) {
            const real* __restrict__ lower = from[k];
            const real* __restrict__ upper = from[k + 1];
            real* __restrict__ difference = to[k];
            VECTORIZE
            for (int i = 0; i < count; ++i) difference[i] = upper[i] - lower[i];
        }
    }
}

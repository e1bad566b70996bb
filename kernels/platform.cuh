// The words of CUDA and a few of our own, for whatever compiles the kernels.
//
// Each .cu file of this folder is compiled three ways, unchanged: by NVRTC for a GPU; by a host C++ compiler, where a
// block is one thread that computes with vectors (host/vectors.hpp); and, in tests, with every CUDA thread an
// operating-system thread (host/emulated_threads.hpp).
#pragma once

#ifdef __CUDACC_RTC__
#define KERNEL extern "C" __global__ void
#define KERNEL_OF(CONSTANT) extern "C" __global__ void  // compiled anew for each value of -DCONSTANT=
#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER __device__ __forceinline__
#define INLINED          // of a lambda: it must be a part of the loop that calls it
#define OUTLINED DEVICE  // a function of its own on a host, where it is one of many variants
#define MAX_RADIUS 1     // of a blur whose radius is known only when running: a GPU has none
#define UNROLL _Pragma("unroll")
#define ONE_BY_ONE _Pragma("unroll 1")
#define MAXIMUM(a, b) fmax(a, b)  // of numbers that are not NaN; of two zeros either one
#define MINIMUM(a, b) fmin(a, b)

// Reads a counter: what the thread reads later comes after what was written before the counter was added to.
DEVICE int load_acquire(const int* counter) {
    int value;
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(counter) : "memory");
    return value;
}

// Adds 1 to a counter, after everything that the thread has written, or seen written.
DEVICE void add_release(int* counter) {
    asm volatile("red.release.gpu.global.add.s32 [%0], 1;" : : "l"(counter) : "memory");
}

// Lets others go on while a thread waits for them.
DEVICE void pause_thread() { __nanosleep(100); }
#else
#include "host/platform.hpp"
#endif

// A thread of a GPU computes one sample at a time. A CPU's computes several: what follows has another meaning there.
#ifndef PLATFORM_HAS_VECTORS

#define VECTORIZE  // says of a loop that its turns are independent
#define LANES 1    // samples of a vector

#define ALIGNED 4          // samples that are read or written at once, at a multiple of as many
#define COPIES_TILES true  // whether samples that a block reads again and again are copied into shared memory

// A loop over `count` samples side by side, at most `most`, whose turns are independent. A GPU makes all `most` turns,
// so that samples are loaded and stored together; there is room behind the samples for what is too many.
#define FOR_SAMPLES(index, count, most) \
    UNROLL                              \
    for (int index = 0; index < ((void)(count), (most)); ++index)

// The type of a vector of numbers.
template <typename T>
struct VectorOf {
    using type = T;
};

#define WORD_PARTS 1  // parts in which a word of four bytes is multiplied
DEVICE int part_of(int word, int) { return word; }

// Values of the samples in a vector, and of all samples that a thread takes at a time.
template <typename T>
using PerLane = T[1];
template <typename T>
using PerSample = T[1];

// The number of samples in the vectors that hold `count`.
DEVICE int whole_vectors(int count) { return count; }

// How many of n > 0 neighbours a vector holds.
DEVICE int lanes_of(int) { return 1; }

// Calls visit(i) for each sample of a vector, in no order.
template <typename Visit>
DEVICE void for_each_lane(const Visit& visit) {
    visit(0);
}

// Calls visit(i) for each of `count` > 0 samples, and those that fill the last vector, in no order.
template <typename Visit>
DEVICE void for_each_sample(int, const Visit& visit) {
    visit(0);
}

// Calls visit(i) for each of `count` > 0 samples, one after the other.
template <typename Visit>
DEVICE void for_each_sample_in_turn(int, const Visit& visit) {
    visit(0);
}

// Goes through the samples of the rows [row_0, row_1), which the threads of a block share. begin(row) gives the
// thread's columns of a row, from its `first` to before its `end`; take(of_row, row, col, at, count) takes `count`
// neighbours of them, from `col` on, behind the `at` samples taken before; use(count) is called when enough samples are
// taken, and begins anew.
template <typename Begin, typename Take, typename Use>
DEVICE void for_each_strip(int row_0, int row_1, const Begin& begin, const Take& take, const Use& use) {
    for (int row = row_0 + threadIdx.y; row < row_1; row += blockDim.y) {
        const auto of_row = begin(row);
        ONE_BY_ONE  // a few turns: written out they take registers
        for (int col = of_row.first; col < of_row.end; ++col) {
            take(of_row, row, col, 0, 1);
            use(1);
        }
    }
}

// Asks for samples before they are needed. A GPU hides the latency of memory behind other threads.
DEVICE void prefetch(const void*, int) {}

#endif

// A pointer to samples, of which the compiler may know that it is a multiple of 16 bytes.
#define ALIGNED_POINTER(pointer) static_cast<decltype(pointer)>(__builtin_assume_aligned(pointer, 16))

// The precision; -DREAL=float|double.
using real = REAL;

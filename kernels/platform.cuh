// The words of CUDA and a few of our own, for whatever compiles the kernels.
//
// Each .cu file of this folder is compiled three ways, unchanged: by NVRTC for a GPU; by a host C++ compiler, where a
// block is one thread (host/vectors.hpp); and, in tests, with every CUDA thread an operating-system thread
// (host/emulated_threads.hpp).
#pragma once

#ifdef __CUDACC_RTC__
#define KERNEL extern "C" __global__ void
#define KERNEL_OF(CONSTANT) extern "C" __global__ void  // compiled anew for each value of -DCONSTANT=
#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER __device__ __forceinline__
#define LANES 1       // samples of a vector: the host's threads compute with vectors
#define STRIP 1       // samples of a window that one thread takes at a time; on a host many vectors
#define SPAN 1        // neighbours in a row among them
#define MAX_RADIUS 1  // of a blur whose radius is known only when running: a GPU has none
#define UNROLL _Pragma("unroll")
#define VECTORIZE          // says of a loop over lanes that its turns are independent
#define PREFETCH(address)  // a GPU hides the latency of memory behind other threads
#define WORD_PARTS 1       // a word of four bytes is multiplied at once
template <typename T>
struct VectorOf {
    using type = T;
};
#else
#include "host/platform.hpp"
#endif

// The precision, of which -DREAL=float|double is the name.
using real = REAL;

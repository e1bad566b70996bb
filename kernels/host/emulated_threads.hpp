// Emulated threads, for tests: each CUDA thread is an operating-system thread, shared arrays are static, barriers are
// real, and a thread computes one sample at a time as on a GPU. Tests run them under the thread, address and
// undefined-behaviour sanitizers.
#pragma once

#include <pthread.h>

#define MAX_SUMS 6144
#define __shared__ static
static thread_local Index3 threadIdx;
static Index3 blockIdx, blockDim, gridDim;
// Two barriers in turn. With a single one, ThreadSanitizer could miss a race right after it: it orders a thread that
// leaves the barrier late after everything that the others did before they reached the same barrier again.
static pthread_barrier_t barriers[2];
static thread_local unsigned n_barriers_passed;
static inline void __syncthreads() { pthread_barrier_wait(&barriers[n_barriers_passed++ % 2]); }

template <typename T>
T atomicAdd(T* to, T value) {
    return __atomic_fetch_add(to, value, __ATOMIC_RELAXED);
}
template <typename T>
void atomicMax_block(T* to, T value) {
    T seen = __atomic_load_n(to, __ATOMIC_RELAXED);
    while (seen < value && !__atomic_compare_exchange_n(to, &seen, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}
template <typename T>
void atomicAdd_block(T* to, T value) {
    atomicAdd(to, value);
}

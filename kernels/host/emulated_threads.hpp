// Emulated threads, for tests: each CUDA thread is an operating-system thread, shared arrays are static, barriers are
// real, and a thread computes one sample at a time as on a GPU. Tests run them under the thread, address and
// undefined-behaviour sanitizers.
#pragma once

#include <pthread.h>

#include <cstdlib>
#include <string_view>

#define MAX_SUMS 6144
#define __shared__ static
static thread_local Index3 threadIdx;
static Index3 blockIdx, blockDim, gridDim;
// Two barriers in turn. With a single one, ThreadSanitizer could miss a race right after it: it orders a thread that
// leaves the barrier late after everything that the others did before they reached the same barrier again.
static pthread_barrier_t barriers[2];
static thread_local unsigned n_barriers_passed;

// The barrier that tests take out, to see that its absence is noticed: its file and line as "descriptor.cu:86".
static const char* const removed_barrier = getenv("GPUSIFT_REMOVED_BARRIER");
static inline bool is_removed(std::string_view path, int line) {
    if (!removed_barrier) return false;
    const std::string_view removed(removed_barrier), file = removed.substr(0, removed.find(':'));
    return atoi(removed.data() + file.size() + 1) == line && path.substr(path.rfind('/') + 1) == file;
}
static inline void __syncthreads(const char* path = __builtin_FILE(), int line = __builtin_LINE()) {
    if (!is_removed(path, line)) pthread_barrier_wait(&barriers[n_barriers_passed++ % 2]);
}

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

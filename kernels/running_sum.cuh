// Running sums over the threads of a block.
#pragma once
#include "platform.cuh"

#define MAX_SUM_THREADS 256

// Sums over the threads of a block: of the threads up to this one, and of all.
struct RunningSum {
    int through, all;
};

// `sums` is in shared memory.
DEVICE RunningSum running_sum(int value, int (*sums)[MAX_SUM_THREADS]) {
    const int thread = threadIdx.x, n_threads = blockDim.x;
    int from = 0;
    sums[0][thread] = value;
    __syncthreads();
    for (int distance = 1; distance < n_threads; distance *= 2, from = 1 - from) {
        sums[1 - from][thread] = sums[from][thread] + (thread >= distance ? sums[from][thread - distance] : 0);
        __syncthreads();
    }
    const RunningSum sum{sums[from][thread], sums[from][n_threads - 1]};
    __syncthreads();
    return sum;
}

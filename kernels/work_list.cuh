// Sharing a list among blocks when its entries take unequal time.
#pragma once
#include "platform.cuh"

// Takes the next entry of a list for this block; returns `length` or more if none is left. A block that finishes early
// takes another entry, so the blocks finish together. Each block receives one such last value; the block that receives
// the largest resets the counter to 0 for the next launch. `taken` is in shared memory. Contains one barrier; the
// caller needs another before the next call.
DEVICE int take(int* __restrict__ counter, int length, int* taken) {
    if (threadIdx.x == 0 && threadIdx.y == 0) {
        *taken = atomicAdd(counter, 1);
        if (*taken == length + gridDim.x - 1) atomicAdd(counter, -length - gridDim.x);
    }
    __syncthreads();
    return *taken;
}

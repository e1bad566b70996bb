// How blocks share a list whose entries take unequal time.
#pragma once
#include "platform.cuh"

// The next entry of a list for this block: whichever block is done with one takes another, so that large ones and small
// ones even out. At least `length` if there is none left; every block is told so once, and the last one sets the
// counter back to 0. Has a barrier, and wants one before the next call. `taken` is in shared memory.
DEVICE int take(int* __restrict__ counter, int length, int* taken) {
    if (threadIdx.x == 0 && threadIdx.y == 0) {
        *taken = atomicAdd(counter, 1);
        if (*taken == length + gridDim.x - 1) atomicAdd(counter, -length - gridDim.x);
    }
    __syncthreads();
    return *taken;
}

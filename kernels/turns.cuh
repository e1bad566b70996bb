// Work in turns: blocks that take the pieces of a launch in order, and wait for what others have written.
#pragma once
#include "platform.cuh"

// A piece of a launch: how many launches were made before, modulo 2^32, and the piece's number.
struct Turn {
    unsigned launch;
    int number;
};

// Takes the next of `n` pieces; a launch takes exactly `n`. `turns` counts launches in its upper half and the pieces
// taken in its lower half: whoever takes the last piece sets the lower half to 0 and adds a launch. So a launch can be
// repeated, in a graph too, without anything to be reset.
DEVICE Turn take_turn(long long* turns, int n) {
    unsigned long long* counter = reinterpret_cast<unsigned long long*>(turns);
    const unsigned long long taken = atomicAdd(counter, 1ull);
    const int number = int(unsigned(taken));
    if (number == n - 1) atomicAdd(counter, (1ull << 32) - n);
    return {unsigned(taken >> 32), number};
}

// What one block writes and another reads, in the same launch, is ordered so:
//
//     writer  all threads write; a barrier; one thread: add_release(counter)
//     reader  one thread: wait_acquire(counter, ...); a barrier; all threads read
//
// The barriers order a block's writes before the addition, and its reads after the wait. The addition's release pairs
// with the acquire that sees its sum or a later one, as each addition goes on with the release sequence of those before
// it. Release and acquire are cumulative: they cover what a barrier orders before the one and after the other. One
// thread waits, as each acquire empties a GPU's first cache. What is read so must not come from the read-only cache, so
// the kernel's pointer to it is neither const nor __restrict__.

// Waits until `count` has been added to a counter that was `before`, both modulo 2^32.
DEVICE void wait_acquire(const int* counter, unsigned before, unsigned count) {
    while (unsigned(load_acquire(counter)) - before < count) pause_thread();
}

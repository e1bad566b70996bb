// Lists that stay on the device: sorting them and removing entries.
//
// A list has room for `capacity` entries for each image (blockIdx.z); its length is in device memory. Threads append in
// no fixed order, so a list is sorted before it is used.
#include "octave.cuh"
#include "running_sum.cuh"

// The exclusive running sum of counts: entry i of the lengths[z] entries takes counts[i] places, so it begins at
//
//     offsets[i] = starts[z] + counts[0] + ... + counts[i - 1].
//
// Each block has a share of the list and adds up all counts before its share itself, so no block waits for another.
//
//     counts   (images, capacity)
//     lengths, starts (images,)
//     most                           number of places available
//     offsets  (images, capacity)
//     total    (images,)             starts[z] plus all counts
//     usable   (images,)             `total`, or 0 if it exceeds `most`
KERNEL sum_counts(const int* __restrict__ counts, const int* __restrict__ lengths, const int* __restrict__ starts,
                  const int capacity, const int most, int* __restrict__ offsets, int* __restrict__ total,
                  int* __restrict__ usable) {
    __shared__ int sums[2][MAX_SUM_THREADS];
    const int z = blockIdx.z, thread = threadIdx.x, n_threads = blockDim.x;
    const int share = ceil_div(lengths[z], gridDim.x);
    const int begin = smaller(int(blockIdx.x) * share, lengths[z]), end = smaller(begin + share, lengths[z]);
    counts += (long long)z * capacity;
    offsets += (long long)z * capacity;
    int sum = 0;
    VECTORIZE
    for (int i = thread; i < begin; i += n_threads) sum += counts[i];
    int before = starts[z] + running_sum(sum, sums).all;
    for (int first = begin; first < end; first += n_threads) {
        const int i = first + thread, count = i < end ? counts[i] : 0;
        const RunningSum of_turn = running_sum(count, sums);
        if (i < end) offsets[i] = before + of_turn.through - count;
        before += of_turn.all;
    }
    if (blockIdx.x == gridDim.x - 1 && thread == 0) {
        total[z] = before;
        usable[z] = before <= most ? before : 0;
    }
}

// The number of a key's row among the rows of all octaves.
DEVICE int row_of(long long key, const long long* __restrict__ octaves) {
    const Candidate candidate = candidate_of(key);
    return octave_of(octaves, candidate.octave).first_row + candidate.row;
}

// Groups candidates by their row, in no fixed order within a row.
//
//     keys     (images, capacity)    packed octave, row, column, scale
//     length   (images,)
//     octaves  (n_octaves, 8)
//     row_offsets (images, n_rows)   where each row's candidates begin
//     row_counts (images, n_rows)    number of each row's candidates; 0 afterwards
//     grouped  (images, capacity)
KERNEL group_by_row(const long long* __restrict__ keys, const int* __restrict__ length, const int capacity,
                    const long long* __restrict__ octaves, const int n_rows, const int* __restrict__ row_offsets,
                    int* __restrict__ row_counts, long long* __restrict__ grouped) {
    const long long z = blockIdx.z;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < length[z]; i += gridDim.x * blockDim.x) {
        const long long key = keys[z * capacity + i];
        const long long row = z * n_rows + row_of(key, octaves);
        grouped[z * capacity + row_offsets[row] + atomicAdd(&row_counts[row], -1) - 1] = key;
    }
}

// Sorts candidates that are grouped by row: the number of smaller keys in its row is a candidate's rank in it.
//
//     grouped, sorted (images, capacity)
//     the others as in group_by_row
KERNEL sort_rows(const long long* __restrict__ grouped, const int* __restrict__ length, const int capacity,
                 const long long* __restrict__ octaves, const int n_rows, const int* __restrict__ row_offsets,
                 long long* __restrict__ sorted) {
    const long long z = blockIdx.z;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < length[z]; i += gridDim.x * blockDim.x) {
        const long long* keys = grouped + z * capacity;
        const int row = row_of(keys[i], octaves);
        const int first = row_offsets[z * n_rows + row];
        const int end = row + 1 < n_rows ? row_offsets[z * n_rows + row + 1] : length[z];
        int place = first;
        for (int j = first; j < end; ++j) place += keys[j] < keys[i];
        sorted[z * capacity + place] = keys[i];
    }
}

// The indices of the accepted entries of a list, in order.
//
//     accepted (images, capacity)    0 or 1
//     offsets  (images, capacity)    running sum of `accepted`
//     length   (images,)
//     kept     (images, capacity)
KERNEL keep_accepted(const int* __restrict__ accepted, const int* __restrict__ offsets, const int* __restrict__ length,
                     const int capacity, int* __restrict__ kept) {
    const long long z = blockIdx.z;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < length[z]; i += gridDim.x * blockDim.x)
        if (accepted[z * capacity + i]) kept[z * capacity + offsets[z * capacity + i]] = i;
}

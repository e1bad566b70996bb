// The limit max_keypoints: the entries of a list that come first in an order of their own, and upright features.
//
// The order is that of three words, of which the first that differ decide: the rank of an entry in its cell of the
// image (for an even coverage; otherwise 0), its weakness, and its index in the list. No two entries are equal in it.
// One block shortens the list of one image (blockIdx.z).
#include "arithmetic.cuh"
#include "running_sum.cuh"

#define DIGIT 8  // bits of a word that one pass looks at
#define N_DIGITS 256
#define RANK 0  // the words
#define WEAKNESS 1
#define INDEX 2
#define N_WORDS 3

using word = unsigned long long;

// The bits of a number that is not negative, inverted, so that larger numbers come first.
DEVICE word inverted(int bits) { return unsigned(~bits); }
DEVICE word inverted(long long bits) { return word(~bits); }

// Bits of a word that may differ.
DEVICE int width_of(int which) { return which == WEAKNESS ? 8 * int(sizeof(real)) : 8 * int(sizeof(int)); }

// A list of one image.
struct List {
    const int* members;     // (n,) indices of candidates
    const int* ranks;       // (n,)
    const real* strengths;  // of the candidates; the larger the absolute value, the stronger
    int n, first_word;      // RANK, or WEAKNESS if all ranks are equal

    DEVICE_MEMBER word at(int which, int i) const {
        if (which == RANK) return ranks[i];
        if (which == INDEX) return i;
        return inverted(bits_of(magnitude_of(strengths[members[i]])));
    }
};

// Where a list is cut: the words up to `which`, and of that the bits from `shift` on. Entries up to it are kept.
struct Cut {
    word words[N_WORDS];
    int which, shift;
    int missing;  // entries to keep of those that are equal to it so far
    int is_found;
};

// Whether an entry equals the cut in all words before `which`, and in the bits of that from `shift` on.
DEVICE bool is_equal(const List& list, const Cut& cut, int which, int shift, int i) {
    for (int w = list.first_word; w < which; ++w)
        if (list.at(w, i) != cut.words[w]) return false;
    return shift >= width_of(which) || list.at(which, i) >> shift == cut.words[which] >> shift;
}

DEVICE bool is_kept(const List& list, const Cut& cut, int i) {
    for (int w = list.first_word; w < cut.which; ++w)
        if (list.at(w, i) != cut.words[w]) return list.at(w, i) < cut.words[w];
    return list.at(cut.which, i) >> cut.shift <= cut.words[cut.which] >> cut.shift;
}

// Counts the values of one digit among the entries that equal the cut so far.
DEVICE void count_digits(const List& list, const Cut& cut, int which, int shift, int* counts) {
    for (int d = threadIdx.x; d < N_DIGITS; d += blockDim.x) counts[d] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < list.n; i += blockDim.x)
        if (is_equal(list, cut, which, shift + DIGIT, i))
            atomicAdd_block(&counts[list.at(which, i) >> shift & (N_DIGITS - 1)], 1);
    __syncthreads();
}

// Extends the cut by the digit at which the missing entries end. By one thread.
DEVICE void extend(Cut* cut, int which, int shift, const int* counts) {
    int digit = 0;
    while (counts[digit] < cut->missing) cut->missing -= counts[digit++];
    cut->words[which] |= word(digit) << shift;
    cut->which = which;
    cut->shift = shift;
    cut->is_found = counts[digit] == cut->missing;
}

// Finds the cut that keeps the first `most` entries, digit by digit.
DEVICE void find_cut(const List& list, int most, Cut* cut, int* counts) {
    if (threadIdx.x == 0) *cut = Cut{{0, 0, 0}, INDEX, 0, most, 0};
    __syncthreads();
    for (int which = list.first_word; which < N_WORDS; ++which)
        for (int shift = width_of(which) - DIGIT; shift >= 0 && !cut->is_found; shift -= DIGIT) {
            count_digits(list, *cut, which, shift, counts);
            if (threadIdx.x == 0) extend(cut, which, shift, counts);
            __syncthreads();
        }
}

// The indices of the entries that are kept, in order.
DEVICE void list_kept(const List& list, const Cut& cut, int (*sums)[MAX_SUM_THREADS], int* kept) {
    int before = 0;
    for (int first = 0; first < list.n; first += blockDim.x) {
        const int i = first + threadIdx.x, keeps = i < list.n && is_kept(list, cut, i);
        const RunningSum of_turn = running_sum(keeps, sums);
        if (keeps) kept[before + of_turn.through - 1] = i;
        before += of_turn.all;
    }
    __syncthreads();
}

// Moves the kept entries to the front. A chunk writes below its end and, as kept[i] >= i, reads no entry before its
// start, so that a later chunk reads nothing that an earlier one writes.
DEVICE void move_kept(const int* kept, int most, int* members, real* orientations) {
    for (int start = 0; start < most; start += blockDim.x) {
        const int i = start + threadIdx.x;
        int member = 0;
        real orientation = 0;
        if (i < most) {
            member = members[kept[i]];
            orientation = orientations[kept[i]];
        }
        __syncthreads();
        if (i < most) {
            members[i] = member;
            orientations[i] = orientation;
        }
    }
}

// Shortens a list to its first `most` entries in the order, which keep their order in the list. One block per image.
//
//     strengths (images, capacity)   of the candidates
//     ranks    (images, capacity)    of the entries, if has_ranks
//     most                           at least 1
//     kept     (images, capacity)    scratch
//     members  (images, capacity)    indices of candidates
//     orientations (images, capacity)    of the entries, moved with them
//     length   (images,)
KERNEL limit_list(const real* __restrict__ strengths, const int* __restrict__ ranks, const int has_ranks,
                  const int capacity, const int most, int* __restrict__ kept, int* members, real* orientations,
                  int* length) {
    __shared__ Cut cut;
    __shared__ int counts[N_DIGITS];
    __shared__ int sums[2][MAX_SUM_THREADS];
    const long long first = (long long)blockIdx.z * capacity;
    const int n = length[blockIdx.z];
    const List list = {members + first, ranks + (has_ranks ? first : 0), strengths + first, n,
                       has_ranks ? RANK : WEAKNESS};
    if (n > most) {  // alike for all threads
        find_cut(list, most, &cut, counts);
        list_kept(list, cut, sums, kept + first);
        move_kept(kept + first, most, members + first, orientations + first);
        if (threadIdx.x == 0) length[blockIdx.z] = most;
    }
}

// The cell that a candidate lies in.
DEVICE int cell_of(const real* __restrict__ positions, int candidate, real side, int rows, int cols) {
    const int row = int(floor_of(positions[2 * candidate] / side)),
              col = int(floor_of(positions[2 * candidate + 1] / side));
    return smaller(larger(row, 0), rows - 1) * cols + smaller(larger(col, 0), cols - 1);
}

// The rank of each entry among those of its cell, the strongest first; of equals, the first one. One block per image.
//
//     members, length, strengths, most    as in limit_list; a list that is not shortened gets no ranks
//     positions (images, capacity, 2)     of the candidates
//     side                                of a square cell, input pixels
//     rows, cols                          of cells
//     counts, starts (images, rows * cols)    scratch; counts are 0 between launches
//     grouped  (images, capacity)         scratch
//     ranks    (images, capacity)
KERNEL rank_in_cells(const int* __restrict__ members, const int* __restrict__ length,
                     const real* __restrict__ strengths, const int capacity, const int most,
                     const real* __restrict__ positions, const real side, const int rows, const int cols, int* counts,
                     int* starts, int* grouped, int* __restrict__ ranks) {
    const long long first = (long long)blockIdx.z * capacity;
    const int n_cells = rows * cols, n = length[blockIdx.z] > most ? length[blockIdx.z] : 0;
    members += first;
    strengths += first;
    positions += 2 * first;
    grouped += first;
    counts += (long long)blockIdx.z * n_cells;
    starts += (long long)blockIdx.z * n_cells;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        atomicAdd(&counts[cell_of(positions, members[i], side, rows, cols)], 1);
    __syncthreads();
    if (threadIdx.x == 0)
        for (int cell = 0, start = 0; cell < n_cells; start += counts[cell++]) starts[cell] = start;
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const int cell = cell_of(positions, members[i], side, rows, cols);
        grouped[starts[cell] + atomicAdd(&counts[cell], -1) - 1] = i;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const int cell = cell_of(positions, members[i], side, rows, cols);
        const int end = cell + 1 < n_cells ? starts[cell + 1] : n;
        const real strength = magnitude_of(strengths[members[i]]);
        int rank = 0;
        for (int j = starts[cell]; j < end; ++j) {
            const int other = grouped[j];
            const real its = magnitude_of(strengths[members[other]]);
            rank += its > strength || (its == strength && other < i);
        }
        ranks[first + i] = rank;
    }
}

// Lists every keypoint once as a feature, all with one orientation.
//
//     keypoints (images, capacity)
//     length   (images,)
//     orientation                    radians
//     features, orientations (images, capacity)
//     total, usable (images,)        the number of features
KERNEL list_upright(const int* __restrict__ keypoints, const int* __restrict__ length, const int capacity,
                    const real orientation, int* __restrict__ features, real* __restrict__ orientations,
                    int* __restrict__ total, int* __restrict__ usable) {
    const long long z = blockIdx.z;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < length[z]; i += gridDim.x * blockDim.x) {
        features[z * capacity + i] = keypoints[z * capacity + i];
        orientations[z * capacity + i] = orientation;
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) total[z] = usable[z] = length[z];
}

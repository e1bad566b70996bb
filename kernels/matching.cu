// Nearest and second nearest neighbours of descriptors (Lowe 2004, section 7.1), by brute force.
//
// A block computes the squared Euclidean distances from a tile of queries to all others, which stream through shared
// memory. Only the best two of each query are kept, so memory grows with the sum of the two numbers of descriptors, not
// with their product. Of equally near others the lowest row is the nearest.
//
// Bytes: |q - o|^2 = |q|^2 + |o|^2 - 2 q.o, exact in 32 bits up to 16,384 elements; |q|^2 is the same for all others
// and is added at the end. Reals: the sum of (q_i - o_i)^2 in the order of i, each operation rounded separately.
#include "best_two.cuh"

// Descriptors of bytes and of reals: the type of a word, which is also that of a distance, and the arithmetic from
// words to distances.
struct OfBytes {
    using Number = int;
    using Integer = int;
    using Vector = VectorOf<int>::type;
    static const int PARTS = WORD_PARTS;
    const int* __restrict__ squares;
    DEVICE_MEMBER int none() const { return 0x7fffffff; }  // a distance that no descriptor has
    DEVICE_MEMBER int square(int row) const { return squares[row]; }
    DEVICE_MEMBER int part(int word, int p) const { return part_of(word, p); }
    DEVICE_MEMBER Vector add(Vector sums, Vector q, int o) const { return add_products(q, o, sums); }
    DEVICE_MEMBER Vector distances(Vector sums, int square) const { return square - 2 * sums; }
};

struct OfReals {
    using Number = real;
    using Integer = fixed;  // of a Number's size
    using Vector = VectorOf<real>::type;
    static const int PARTS = 1;
    DEVICE_MEMBER real none() const { return from_bits(fixed(2 * Bits<real>::bias + 1) << Bits<real>::mantissa); }
    DEVICE_MEMBER real square(int) const { return 0; }
    DEVICE_MEMBER real part(real word, int) const { return word; }
    DEVICE_MEMBER Vector add(Vector sums, Vector q, real o) const { return sums + (q - o) * (q - o); }
    DEVICE_MEMBER Vector distances(Vector sums, real square) const { return sums + square; }
};

// The squared length of each descriptor of bytes.
//
//     words      (n, n_words)        four bytes in each
//     squares    (n,)
KERNEL square_lengths(const int* __restrict__ words, const int n, const int n_words, int* __restrict__ squares) {
    for (int row = blockIdx.x * blockDim.x + threadIdx.x; row < n; row += gridDim.x * blockDim.x) {
        int sum = 0;
        for (int w = 0; w < n_words; ++w) {
            const int word = words[(long long)row * n_words + w];
            sum = add_products(word, word, sum);
        }
        squares[row] = sum;
    }
}

// The best two of descriptors of bytes.
//
//     words      (n, n_words)        all descriptors, four bytes in each word
//     squares    (n,)                their squared lengths
//     queries    (n_queries,)        the rows to search for
//     tasks      (n_tasks, 8)        the work of blocks; see `Task`
//     allowed    flat                masks; zero where a pair must not match
//     nearest, second                squared distances; 2^31 - 1 if there is no such neighbour
//     rows                           row of the nearest; -1 if there is none
KERNEL nearest_bytes(const int* __restrict__ words, const int* __restrict__ squares, const int n_words,
                     const int* __restrict__ queries, const long long* __restrict__ tasks, const int n_tasks,
                     const unsigned char* __restrict__ allowed, int* __restrict__ nearest, int* __restrict__ second,
                     int* __restrict__ rows) {
    find_nearest(OfBytes{squares}, words, n_words, queries, tasks, n_tasks, allowed, nearest, second, rows);
}

// The best two of descriptors of reals.
//
//     values     (n, width)          all descriptors; finite
//     queries, tasks, allowed, rows  as above
//     nearest, second                squared distances; infinite if there is no such neighbour
KERNEL nearest_reals(const real* __restrict__ values, const int width, const int* __restrict__ queries,
                     const long long* __restrict__ tasks, const int n_tasks, const unsigned char* __restrict__ allowed,
                     real* __restrict__ nearest, real* __restrict__ second, int* __restrict__ rows) {
    find_nearest(OfReals{}, values, width, queries, tasks, n_tasks, allowed, nearest, second, rows);
}

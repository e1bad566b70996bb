// The nearest and the second nearest of a tile of queries among many others; for matching.cu.
#pragma once
#include "arithmetic.cuh"

// The work of a block: queries, others, and which pairs of them are allowed, all those where mask_other is 0.
struct Task {
    int first_query, n_queries;              // of the list of queries
    int first_other, n_others;               // rows
    long long out;                           // place of the first query's results
    long long mask, mask_query, mask_other;  // allowed[mask + query row * mask_query + other row * mask_other]
};

// tasks: (n_tasks, 8)
DEVICE Task task_of(const long long* __restrict__ tasks, int t) {
    const long long* row = tasks + 8 * t;
    return {int(row[0]), int(row[1]), int(row[2]), int(row[3]), row[4], row[5], row[6], row[7]};
}

// The two smallest distances of each of some queries, and the row of the smallest.
template <typename Distance, typename Row>
struct Best {
    Distance nearest, second;
    Row row;

    // Another distance, of a higher row than all before.
    DEVICE_MEMBER void see(Distance distance, Row other) {
        second = smaller(second, larger(distance, nearest));
        row = distance < nearest ? other : row;
        nearest = smaller(distance, nearest);
    }

    // What was seen among other rows.
    DEVICE_MEMBER void join(Best seen) {
        const bool nearer = seen.nearest < nearest || (seen.nearest == nearest && seen.row < row);
        second = nearer ? smaller(seen.second, nearest) : smaller(second, seen.nearest);
        row = nearer ? seen.row : row;
        nearest = nearer ? seen.nearest : nearest;
    }
};

// What a block has in shared memory, in words or, where words are multiplied in parts, in those.
//
// Of a tile of queries a thread has a strip of MATCH_VECTORS vectors, and of each tile of others a group of
// MATCH_OTHERS, so that each word it reads is used several times. Longer descriptors come in chunks of MATCH_BYTES.
template <typename Of>
struct Tile {
    using Number = typename Of::Number;
    using Vector = typename Of::Vector;
    static const int LANES_OF = sizeof(Vector) / sizeof(Number), STRIP_QUERIES = MATCH_VECTORS * LANES_OF;
    static const int QUERIES = MATCH_STRIPS * STRIP_QUERIES, OTHERS = MATCH_GROUPS * MATCH_OTHERS;
    static const int PARTS = MATCH_BYTES / sizeof(Number), WORDS = PARTS / Of::PARTS;
    // A GPU's threads read one part of several others at once, a host reads the parts of one in turn. The padding
    // spreads a descriptor's parts over the banks of shared memory.
    static const int PADDING = LANES == 1 ? 4 : 0, QUERY_PITCH = QUERIES + PADDING;
    static const int OTHER_STEP = LANES == 1 ? 1 : PARTS, PART_STEP = LANES == 1 ? OTHERS + PADDING : 1;

    // Puts the parts of n words of a descriptor into shared memory, `step` apart.
    static DEVICE_MEMBER void load(Of of, const Number* __restrict__ words, int n, int step, Number* __restrict__ to) {
        for (int p = 0; p < Of::PARTS; ++p) {
            VECTORIZE
            for (int w = threadIdx.x; w < n; w += blockDim.x) to[(p * n + w) * step] = of.part(words[w], p);
        }
    }

    // Adds to the sums of a strip of queries and a group of others.
    static DEVICE_MEMBER void add(Of of, const Number* __restrict__ query_parts, const Number* __restrict__ other_parts,
                                  int n_parts, Vector (&sums)[MATCH_OTHERS][MATCH_VECTORS]) {
        for (int i = 0; i < n_parts; ++i) {
            Vector queries[MATCH_VECTORS];
            UNROLL
            for (int v = 0; v < MATCH_VECTORS; ++v)
                queries[v] = *(const Vector*)(query_parts + i * QUERY_PITCH + v * LANES_OF);
            UNROLL
            for (int o = 0; o < MATCH_OTHERS; ++o) {
                const Number other = other_parts[i * PART_STEP + o * OTHER_STEP];
                UNROLL
                for (int v = 0; v < MATCH_VECTORS; ++v) sums[o][v] = of.add(sums[o][v], queries[v], other);
            }
        }
    }
};

// A block takes tasks; its threads' groups are joined at the end of each.
template <typename Of>
DEVICE void find_nearest(Of of, const typename Of::Number* __restrict__ descriptors, const int n_words,
                         const int* __restrict__ queries, const long long* __restrict__ tasks, const int n_tasks,
                         const unsigned char* __restrict__ allowed, typename Of::Number* __restrict__ nearest,
                         typename Of::Number* __restrict__ second, int* __restrict__ rows) {
    using T = Tile<Of>;
    using Number = typename Of::Number;
    using Integer = typename Of::Integer;
    using Vector = typename Of::Vector;
    using Rows = typename VectorOf<Integer>::type;
    alignas(16) __shared__ Number query_parts[T::PARTS * T::QUERY_PITCH];
    alignas(16) __shared__ Number other_parts[T::PARTS * (T::OTHERS + T::PADDING)];
    __shared__ Number other_squares[T::OTHERS];
    __shared__ Number nearest_of[MATCH_GROUPS][T::QUERIES], second_of[MATCH_GROUPS][T::QUERIES];
    __shared__ Integer rows_of[MATCH_GROUPS][T::QUERIES];
    const auto words_of = [=](int row) { return descriptors + (long long)row * n_words; };
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, n_threads = blockDim.x * blockDim.y;
    const int n_units = MATCH_STRIPS * MATCH_GROUPS;  // a unit is a strip of queries and a group of others
    for (int t = blockIdx.x; t < n_tasks; t += gridDim.x) {
        const Task task = task_of(tasks, t);
        for (int first = 0; first < task.n_queries; first += T::QUERIES) {
            const int* listed = queries + task.first_query + first;
            const int n_listed = smaller(T::QUERIES, task.n_queries - first);
            for (int turn = 0; turn < n_units; turn += n_threads) {
                const int unit = turn + thread, group = unit / MATCH_STRIPS;
                const int from_query = unit % MATCH_STRIPS * T::STRIP_QUERIES, from_other = group * MATCH_OTHERS;
                Best<Vector, Rows> best[MATCH_VECTORS];
                for (auto& two : best) two = {Vector{} + of.none(), Vector{} + of.none(), Rows{} - 1};
                for (int tile = 0; tile < task.n_others; tile += T::OTHERS) {
                    const int first_other = task.first_other + tile;
                    const int n_others = smaller(T::OTHERS, task.n_others - tile);
                    Vector sums[MATCH_OTHERS][MATCH_VECTORS] = {};
                    for (int chunk = 0; chunk < n_words; chunk += T::WORDS) {
                        const int n = smaller(T::WORDS, n_words - chunk);
                        __syncthreads();
                        if (tile == 0 || n < n_words)  // otherwise they are there
                            for (int q = threadIdx.y; q < T::QUERIES; q += blockDim.y) {
                                const Number* words = words_of(listed[smaller(q, n_listed - 1)]) + chunk;
                                T::load(of, words, n, T::QUERY_PITCH, query_parts + q);
                            }
                        for (int o = threadIdx.y; o < T::OTHERS; o += blockDim.y) {
                            const int row = first_other + smaller(o, n_others - 1);
                            T::load(of, words_of(row) + chunk, n, T::PART_STEP, other_parts + o * T::OTHER_STEP);
                            if (threadIdx.x == 0) other_squares[o] = of.square(row);
                        }
                        __syncthreads();
                        if (unit < n_units)
                            T::add(of, query_parts + from_query, other_parts + from_other * T::OTHER_STEP,
                                   Of::PARTS * n, sums);
                    }
                    if (unit >= n_units) continue;
                    UNROLL
                    for (int o = 0; o < MATCH_OTHERS; ++o) {
                        const int row = first_other + from_other + o;
                        if (from_other + o >= n_others) break;
                        UNROLL
                        for (int v = 0; v < MATCH_VECTORS; ++v) {
                            Vector distance = of.distances(sums[o][v], other_squares[from_other + o]);
                            if (task.mask_other != 0) {
                                alignas(Vector) Number least[T::LANES_OF];
                                for (int lane = 0; lane < T::LANES_OF; ++lane) {
                                    const int q = smaller(from_query + v * T::LANES_OF + lane, n_listed - 1);
                                    const long long at =
                                        task.mask + listed[q] * task.mask_query + row * task.mask_other;
                                    least[lane] = allowed[at] ? -of.none() : of.none();
                                }
                                distance = larger(distance, *(const Vector*)least);
                            }
                            best[v].see(distance, Rows{} + row);
                        }
                    }
                }
                if (unit >= n_units) continue;
                for (int v = 0; v < MATCH_VECTORS; ++v) {
                    const int q = from_query + v * T::LANES_OF;
                    *(Vector*)(nearest_of[group] + q) = best[v].nearest;
                    *(Vector*)(second_of[group] + q) = best[v].second;
                    *(Rows*)(rows_of[group] + q) = best[v].row;
                }
            }
            __syncthreads();
            for (int q = thread; q < n_listed; q += n_threads) {
                Best<Number, Integer> best{nearest_of[0][q], second_of[0][q], rows_of[0][q]};
                for (int g = 1; g < MATCH_GROUPS; ++g) best.join({nearest_of[g][q], second_of[g][q], rows_of[g][q]});
                const long long to = task.out + first + q;
                nearest[to] = best.nearest == of.none() ? of.none() : best.nearest + of.square(listed[q]);
                second[to] = best.second == of.none() ? of.none() : best.second + of.square(listed[q]);
                rows[to] = int(best.row);
            }
        }
    }
}

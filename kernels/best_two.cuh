// The nearest and the second nearest of a tile of queries among many others; for matching.cu.
#pragma once
#include "arithmetic.cuh"

// The work of a block: queries, others, and a mask of the allowed pairs. If mask_other is 0, all are allowed.
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

    // Takes another distance into account, of a higher row than all before.
    DEVICE_MEMBER void see(Distance distance, Row other) {
        second = smaller(second, larger(distance, nearest));
        row = distance < nearest ? other : row;
        nearest = smaller(distance, nearest);
    }

    // Takes the best two among other rows into account.
    DEVICE_MEMBER void join(Best seen) {
        const bool nearer = seen.nearest < nearest || (seen.nearest == nearest && seen.row < row);
        second = nearer ? smaller(seen.second, nearest) : smaller(second, seen.nearest);
        row = nearer ? seen.row : row;
        nearest = nearer ? seen.nearest : nearest;
    }
};

// The tiles of a block. Of a tile of queries a thread has a strip of MATCH_VECTORS vectors, and of a tile of others a
// group of MATCH_OTHERS, so that it uses each word that it reads several times. Longer descriptors come in chunks of
// MATCH_BYTES.
template <typename Of>
struct Tile {
    using Number = typename Of::Number;
    using Vector = typename Of::Vector;
    static const int VECTOR = sizeof(Vector) / sizeof(Number), STRIP_QUERIES = MATCH_VECTORS * VECTOR;
    static const int QUERIES = MATCH_STRIPS * STRIP_QUERIES, OTHERS = MATCH_GROUPS * MATCH_OTHERS;
    static const int UNITS = MATCH_STRIPS * MATCH_GROUPS;  // a unit is a strip of queries and a group of others
    // counted in parts: words, or the parts in which a CPU multiplies them
    static const int PARTS = MATCH_BYTES / sizeof(Number), WORDS = PARTS / Of::PARTS;
    static const int QUERY_PITCH = QUERIES + MATCH_PADDING;
    static const int OTHER_STEP = MATCH_OTHERS_ADJACENT ? 1 : PARTS;
    static const int PART_STEP = MATCH_OTHERS_ADJACENT ? OTHERS + MATCH_PADDING : 1;
};

// Shared memory of a block: the parts of a tile, and the best two of each query in each group of others.
template <typename Of>
struct Shared {
    using Number = typename Of::Number;
    using T = Tile<Of>;
    alignas(16) Number query_parts[T::PARTS * T::QUERY_PITCH];
    alignas(16) Number other_parts[T::PARTS * (T::OTHERS + MATCH_PADDING)];
    Number other_squares[T::OTHERS];
    Number nearest[MATCH_GROUPS][T::QUERIES], second[MATCH_GROUPS][T::QUERIES];
    typename Of::Integer rows[MATCH_GROUPS][T::QUERIES];
};

// The search of a block for the best two of a tile of queries.
template <typename Of>
struct Search {
    using T = Tile<Of>;
    using Number = typename Of::Number;
    using Integer = typename Of::Integer;
    using Vector = typename Of::Vector;
    using Rows = typename VectorOf<Integer>::type;
    using Sums = Vector[MATCH_OTHERS][MATCH_VECTORS];
    using Bests = Best<Vector, Rows>[MATCH_VECTORS];

    const Of of;
    const Number* descriptors;
    const int n_words;
    const unsigned char* allowed;
    const Task task;
    const int* queries;   // rows
    const int n_queries;  // of the tile
    Shared<Of>& shared;

    // The best two of the strip of queries of a unit among its groups of others. All threads take part in loading.
    DEVICE_MEMBER void search_unit(int unit) const {
        const int group = unit / MATCH_STRIPS, first_query = unit % MATCH_STRIPS * T::STRIP_QUERIES;
        Bests best;
        for (auto& two : best) two = {Vector{} + of.none(), Vector{} + of.none(), Rows{} - 1};
        for (int tile = 0; tile < task.n_others; tile += T::OTHERS) {
            Sums sums = {};
            for (int chunk = 0; chunk < n_words; chunk += T::WORDS) {
                const int n = smaller(T::WORDS, n_words - chunk);
                __syncthreads();
                if (tile == 0 || n < n_words) load_queries(chunk, n);  // otherwise they are loaded
                load_others(tile, chunk, n);
                __syncthreads();
                if (unit < T::UNITS) add(first_query, group, n, sums);
            }
            if (unit < T::UNITS) see(first_query, group, tile, sums, best);
        }
        if (unit >= T::UNITS) return;
        for (int v = 0; v < MATCH_VECTORS; ++v) {
            const int q = first_query + v * T::VECTOR;
            *(Vector*)(shared.nearest[group] + q) = best[v].nearest;
            *(Vector*)(shared.second[group] + q) = best[v].second;
            *(Rows*)(shared.rows[group] + q) = best[v].row;
        }
    }

    // The best two of a query of the tile, of all groups of others.
    DEVICE_MEMBER Best<Number, Integer> best_of(int q) const {
        Best<Number, Integer> best{shared.nearest[0][q], shared.second[0][q], shared.rows[0][q]};
        for (int g = 1; g < MATCH_GROUPS; ++g)
            best.join({shared.nearest[g][q], shared.second[g][q], shared.rows[g][q]});
        return best;
    }

 private:
    // Loads the parts of n words of a descriptor, `step` apart.
    DEVICE_MEMBER void load(int row, int chunk, int n, int step, Number* __restrict__ to) const {
        const Number* __restrict__ words = descriptors + (long long)row * n_words + chunk;
        for (int p = 0; p < Of::PARTS; ++p) {
            VECTORIZE
            for (int w = threadIdx.x; w < n; w += blockDim.x) to[(p * n + w) * step] = of.part(words[w], p);
        }
    }

    DEVICE_MEMBER void load_queries(int chunk, int n) const {
        for (int q = threadIdx.y; q < T::QUERIES; q += blockDim.y)
            load(queries[smaller(q, n_queries - 1)], chunk, n, T::QUERY_PITCH, shared.query_parts + q);
    }

    DEVICE_MEMBER void load_others(int tile, int chunk, int n) const {
        const int last = task.n_others - 1;
        for (int o = threadIdx.y; o < T::OTHERS; o += blockDim.y) {
            const int row = task.first_other + smaller(tile + o, last);
            load(row, chunk, n, T::PART_STEP, shared.other_parts + o * T::OTHER_STEP);
            if (threadIdx.x == 0) shared.other_squares[o] = of.square(row);
        }
    }

    // Adds what n words of a strip of queries and a group of others give to their sums.
    DEVICE_MEMBER void add(int first_query, int group, int n, Sums& sums) const {
        const Number* query_parts = shared.query_parts + first_query;
        const Number* other_parts = shared.other_parts + group * MATCH_OTHERS * T::OTHER_STEP;
        for (int i = 0; i < Of::PARTS * n; ++i) {
            Vector parts[MATCH_VECTORS];
            UNROLL
            for (int v = 0; v < MATCH_VECTORS; ++v)
                parts[v] = *(const Vector*)(query_parts + i * T::QUERY_PITCH + v * T::VECTOR);
            UNROLL
            for (int o = 0; o < MATCH_OTHERS; ++o) {
                const Number other = other_parts[i * T::PART_STEP + o * T::OTHER_STEP];
                UNROLL
                for (int v = 0; v < MATCH_VECTORS; ++v) sums[o][v] = of.add(sums[o][v], parts[v], other);
            }
        }
    }

    // Has the best two see the distances of a strip of queries from a group of others.
    DEVICE_MEMBER void see(int first_query, int group, int tile, const Sums& sums, Bests& best) const {
        UNROLL
        for (int o = 0; o < MATCH_OTHERS; ++o) {
            const int in_tile = group * MATCH_OTHERS + o;
            if (tile + in_tile >= task.n_others) break;
            const int row = task.first_other + tile + in_tile;
            UNROLL
            for (int v = 0; v < MATCH_VECTORS; ++v) {
                Vector distance = of.distances(sums[o][v], shared.other_squares[in_tile]);
                if (task.mask_other != 0) distance = larger(distance, least(first_query + v * T::VECTOR, row));
                best[v].see(distance, Rows{} + row);
            }
        }
    }

    // The least distances of a vector of queries from another: none() where the mask forbids the pair.
    DEVICE_MEMBER Vector least(int first_query, int row) const {
        alignas(Vector) Number distances[T::VECTOR];
        for (int i = 0; i < T::VECTOR; ++i) {
            const int q = queries[smaller(first_query + i, n_queries - 1)];
            const bool may_match = allowed[task.mask + q * task.mask_query + row * task.mask_other];
            distances[i] = may_match ? -of.none() : of.none();
        }
        return *(const Vector*)distances;
    }
};

// A block takes tasks. The parameters are those of the kernels in matching.cu.
template <typename Of>
DEVICE void find_nearest(Of of, const typename Of::Number* __restrict__ descriptors, const int n_words,
                         const int* __restrict__ queries, const long long* __restrict__ tasks, const int n_tasks,
                         const unsigned char* __restrict__ allowed, typename Of::Number* __restrict__ nearest,
                         typename Of::Number* __restrict__ second, int* __restrict__ rows) {
    using T = Tile<Of>;
    __shared__ Shared<Of> shared;
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, n_threads = blockDim.x * blockDim.y;
    for (int t = blockIdx.x; t < n_tasks; t += gridDim.x) {
        const Task task = task_of(tasks, t);
        for (int first = 0; first < task.n_queries; first += T::QUERIES) {
            const int* of_tile = queries + task.first_query + first;
            const int n_of_tile = smaller(T::QUERIES, task.n_queries - first);
            const Search<Of> search{of, descriptors, n_words, allowed, task, of_tile, n_of_tile, shared};
            for (int turn = 0; turn < T::UNITS; turn += n_threads) search.search_unit(turn + thread);
            __syncthreads();
            for (int q = thread; q < n_of_tile; q += n_threads) {
                const auto best = search.best_of(q);
                const long long to = task.out + first + q;
                nearest[to] = best.nearest == of.none() ? of.none() : best.nearest + of.square(of_tile[q]);
                second[to] = best.second == of.none() ? of.none() : best.second + of.square(of_tile[q]);
                rows[to] = int(best.row);
            }
        }
    }
}

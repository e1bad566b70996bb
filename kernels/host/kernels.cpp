// The CPU device: a table of the kernels, compiled for one precision and one instruction set, and their launch.
//
// Compiled once with -DREAL=float and once with -DREAL=double for each instruction set. The interface is C's, so that
// Python needs no extension module: gpusift_find_float32, gpusift_launch_float32, and the same for float64.
#include "../intensities.cu"
#include "../scale_space.cu"
#include "../extrema.cu"
#include "../refinement.cu"
#include "../affine_shape.cu"
#include "../orientation.cu"
#include "../selection.cu"
#include "../descriptor.cu"
#include "../collection.cu"
#include "../lists.cu"
#include "../matching.cu"
#include "../alignment.cu"

#include "team.hpp"

#include <string_view>
#include <utility>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace {

// A kernel that takes its arguments from memory, one every 8 bytes.
using Thunk = void (*)(const char* arguments);

template <typename... Parameters, size_t... Is>
void call(void (*kernel)(Parameters...), const char* arguments, std::index_sequence<Is...>) {
    kernel(*reinterpret_cast<const std::remove_const_t<Parameters>*>(arguments + 8 * Is)...);
}

template <typename... Parameters>
void unpack(void (*kernel)(Parameters...), const char* arguments) {
    call(kernel, arguments, std::index_sequence_for<Parameters...>{});
}

template <auto kernel>
void thunk(const char* arguments) {
    unpack(kernel, arguments);
}

// First levels of a larger radius, and all of them where fma is software (platform.hpp), use the loop of radius 0.
#if defined(fmaf) && !defined(EMULATED_THREADS)
constexpr int largest_compiled_radius = 0;
#else
constexpr int largest_compiled_radius = MAX_FUSED_RADIUS;
#endif

template <size_t... Radii>
Thunk first_level_of(int radius, std::index_sequence<Radii...>) {
    constexpr Thunk thunks[] = {thunk<first_level<int(Radii)>>...};
    return thunks[radius <= largest_compiled_radius ? radius : 0];
}

// The kernel of that name, compiled for that constant if it is one of KERNEL_OF; nullptr if there is none.
Thunk find(std::string_view name, int constant) {
    if (name == "intensities") return thunk<intensities>;
    if (name == "upsample")
        return constant == 1 ? thunk<upsample<1>> : constant == 2 ? thunk<upsample<2>> : thunk<upsample<4>>;
    if (name == "blur") return thunk<blur>;
    if (name == "first_level")
        return constant <= MAX_FUSED_RADIUS
                   ? first_level_of(constant, std::make_index_sequence<largest_compiled_radius + 1>{})
                   : nullptr;
    if (name == "decimate") return thunk<decimate>;
    if (name == "find_extrema") return thunk<find_extrema>;
    if (name == "refine") return thunk<refine>;
    if (name == "estimate_shapes") return thunk<estimate_shapes>;
    if (name == "assign_orientations") return constant ? thunk<assign_orientations<1>> : thunk<assign_orientations<0>>;
    if (name == "describe") return constant ? thunk<describe<1>> : thunk<describe<0>>;
    if (name == "describe_pooled") return constant ? thunk<describe_pooled<1>> : thunk<describe_pooled<0>>;
    if (name == "limit_list") return thunk<limit_list>;
    if (name == "rank_in_cells") return thunk<rank_in_cells>;
    if (name == "list_upright") return thunk<list_upright>;
    if (name == "sample_templates") return thunk<sample_templates>;
    if (name == "align_templates") return constant ? thunk<align_templates<1>> : thunk<align_templates<0>>;
    if (name == "spread_orientations") return thunk<spread_orientations>;
    if (name == "sum_counts") return thunk<sum_counts>;
    if (name == "group_by_row") return thunk<group_by_row>;
    if (name == "sort_rows") return thunk<sort_rows>;
    if (name == "keep_accepted") return thunk<keep_accepted>;
    if (name == "collect") return thunk<collect>;
    if (name == "square_lengths") return thunk<square_lengths>;
    if (name == "nearest_bytes") return thunk<nearest_bytes>;
    if (name == "nearest_reals") return thunk<nearest_reals>;
    return nullptr;
}

// The floating-point mode of a kernel, while it runs: rounding to nearest and no traps, whatever mode other libraries
// have set in the thread. In float subnormals are flushed to zero, as a GPU does with the code that CuPy compiles.
class FloatingPointMode {
    static constexpr bool flushes = sizeof(real) == sizeof(float);
#if defined(__SSE__)
    const unsigned before = _mm_getcsr();

 public:
    FloatingPointMode() { _mm_setcsr(flushes ? 0x9fc0 : 0x1f80); }  // MXCSR: FTZ, DAZ, and all exceptions masked
    ~FloatingPointMode() { _mm_setcsr(before); }
#elif defined(__aarch64__)
    const uint64_t before = read();
    static uint64_t read() {
        uint64_t mode;
        asm volatile("mrs %0, fpcr" : "=r"(mode));
        return mode;
    }
    static void write(uint64_t mode) { asm volatile("msr fpcr, %0" ::"r"(mode)); }

 public:
    FloatingPointMode() { write(flushes ? 1u << 24 : 0); }  // FPCR: FZ
    ~FloatingPointMode() { write(before); }
#endif
};

#ifdef EMULATED_THREADS

void run(Team&, Thunk kernel, Index3 grid, Index3 block, const char* arguments) {
    static std::mutex one_launch_at_a_time;
    const std::lock_guard lock(one_launch_at_a_time);
    const int n_threads = block.x * block.y * block.z;
    gridDim = grid;
    blockDim = block;
    blockIdx = {0, 0, 0};
    for (auto& barrier : barriers) pthread_barrier_init(&barrier, nullptr, n_threads);
    std::vector<std::thread> threads;
    for (int t = 0; t < n_threads; ++t)
        threads.emplace_back([=] {
            const FloatingPointMode mode;
            threadIdx = {t % block.x, t / block.x % block.y, t / (block.x * block.y)};
            for (int b = 0; b < grid.x * grid.z; ++b) {
                if (t == 0) blockIdx = {b % grid.x, 0, b / grid.x};
                __syncthreads();
                kernel(arguments);
                __syncthreads();
            }
        });
    for (auto& thread : threads) thread.join();
    for (auto& barrier : barriers) pthread_barrier_destroy(&barrier);
}

#else

// A launch starts with the calling thread and the helpers that are awake. It wakes the others once it has run for as
// long as waking a thread takes.
void run(Team& team, Thunk kernel, Index3 grid, Index3, const char* arguments) {
    using Clock = std::chrono::steady_clock;
    const int n_blocks = grid.x * grid.z;
    std::atomic<int> next{0};
    auto one_block = [&] {
        const int b = next.fetch_add(1, std::memory_order_relaxed);
        if (b >= n_blocks) return false;
        blockIdx = {b % grid.x, 0, b / grid.x};
        kernel(arguments);
        return true;
    };
    const std::function<void()> share = [&] {
        const FloatingPointMode mode;
        gridDim = grid;
        while (one_block()) {
        }
    };
    if (!team.has_helpers() || n_blocks == 1) return share();
    team.open(share);
    {
        const FloatingPointMode mode;
        gridDim = grid;
        const auto alone_until = Clock::now() + std::chrono::microseconds(50);
        while (Clock::now() < alone_until && one_block()) {
        }
    }
    if (next.load(std::memory_order_relaxed) < n_blocks) team.call();
    share();
    team.close();
}

#endif

}  // namespace

#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)
#define PRECISION_float float32
#define PRECISION_double float64
#define PRECISION PASTE(PRECISION_, REAL)

// A kernel, its blocks, and its arguments, one every 8 bytes; gpusift/devices/cpu.py packs it alike. No grid has a y.
struct Launch {
    Thunk kernel;
    Index3 grid, block;
    const char* arguments;
};

extern "C" {

// The kernel of that name, compiled for that constant if there are several, or null.
__attribute__((visibility("default"))) const void* PASTE(gpusift_find_, PRECISION)(const char* name, int constant) {
    return reinterpret_cast<const void*>(find(name, constant));
}

// Runs launches, one after the other, with a team, or alone if it is null.
__attribute__((visibility("default"))) void PASTE(gpusift_launch_, PRECISION)(void* team, const Launch* launches,
                                                                              int n_launches) {
    Team nobody(1);
    for (const Launch* launch = launches; launch < launches + n_launches; ++launch)
        run(team ? *static_cast<Team*>(team) : nobody, launch->kernel, launch->grid, launch->block, launch->arguments);
}

}  // extern "C"

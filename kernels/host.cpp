// The CPU device: a table of the kernels, compiled for one precision and one instruction set, and their launch.
//
// Compiled once with -DREAL=float and once with -DREAL=double for each instruction set. The interface is C's, so that
// Python needs no extension module: gpusift_launch_float32 and gpusift_launch_float64.
#include "scale_space.cu"
#include "extrema.cu"
#include "refinement.cu"
#include "orientation.cu"
#include "descriptor.cu"

#include <atomic>
#include <chrono>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#ifdef EMULATED_THREADS
#include <mutex>
#endif

namespace {

using Thunk = void (*)(void** arguments);

template <typename... Parameters, size_t... Is>
void call(void (*kernel)(Parameters...), void** arguments, std::index_sequence<Is...>) {
    kernel(*static_cast<std::remove_const_t<Parameters>*>(arguments[Is])...);
}

template <typename... Parameters>
void unpack(void (*kernel)(Parameters...), void** arguments) {
    call(kernel, arguments, std::index_sequence_for<Parameters...>{});
}

template <auto kernel>
void thunk(void** arguments) {
    unpack(kernel, arguments);
}

// Blurs of a larger radius, and all where fma is software (host.hpp), run through the loop of the radius 0.
#if defined(fmaf) && !defined(EMULATED_THREADS)
constexpr int largest_compiled_radius = 0;
#else
constexpr int largest_compiled_radius = 16;
#endif

template <size_t... Radii>
Thunk blur_of(int radius, std::index_sequence<Radii...>) {
    constexpr Thunk thunks[] = {thunk<blur<int(Radii)>>...};
    return thunks[radius <= largest_compiled_radius ? radius : 0];
}

// The kernel of that name, compiled for that constant if it is one of KERNEL_OF; nullptr if there is none.
Thunk find(std::string_view name, int constant) {
    if (name == "upsample")
        return constant == 1 ? thunk<upsample<1>> : constant == 2 ? thunk<upsample<2>> : thunk<upsample<4>>;
    if (name == "blur") return blur_of(constant, std::make_index_sequence<largest_compiled_radius + 1>{});
    if (name == "decimate") return thunk<decimate>;
    if (name == "find_extrema") return thunk<find_extrema>;
    if (name == "refine") return thunk<refine>;
    if (name == "assign_orientations") return thunk<assign_orientations>;
    if (name == "describe") return thunk<describe>;
    return nullptr;
}

// A GPU's float arithmetic flushes subnormals to zero, as CuPy compiles it; so do the host's kernels, while they run.
class FlushSubnormals {
#if defined(__SSE__)
    const unsigned before = _mm_getcsr();

 public:
    FlushSubnormals() {
        if (sizeof(real) == sizeof(float)) _mm_setcsr(before | 0x8040);
    }
    ~FlushSubnormals() { _mm_setcsr(before); }
#elif defined(__aarch64__)
    const uint64_t before = read();
    static uint64_t read() {
        uint64_t mode;
        asm volatile("mrs %0, fpcr" : "=r"(mode));
        return mode;
    }
    static void write(uint64_t mode) { asm volatile("msr fpcr, %0" ::"r"(mode)); }

 public:
    FlushSubnormals() {
        if (sizeof(real) == sizeof(float)) write(before | 1u << 24);
    }
    ~FlushSubnormals() { write(before); }
#endif
};

#ifdef EMULATED_THREADS

void run(Thunk kernel, Index3 grid, Index3 block, int, void** arguments) {
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
            const FlushSubnormals flush;
            threadIdx = {t % block.x, t / block.x % block.y, t / (block.x * block.y)};
            for (int b = 0; b < grid.x; ++b) {
                if (t == 0) blockIdx.x = b;
                __syncthreads();
                kernel(arguments);
                __syncthreads();
            }
        });
    for (auto& thread : threads) thread.join();
    for (auto& barrier : barriers) pthread_barrier_destroy(&barrier);
}

#else

// Threads are started for each launch and joined at its end: nothing is kept that a fork, another thread's launch or
// the interpreter's end could meet half-way. To have one running takes some 50 microseconds, so a launch begins alone
// and calls for help when it has taken that long.
void run(Thunk kernel, Index3 grid, Index3, int n_threads, void** arguments) {
    using Clock = std::chrono::steady_clock;
    std::atomic<int> next{0};
    auto one_block = [&] {
        const int b = next.fetch_add(1, std::memory_order_relaxed);
        if (b >= grid.x) return false;
        blockIdx.x = b;
        kernel(arguments);
        return true;
    };
    auto all_blocks = [&] {
        const FlushSubnormals flush;
        gridDim = grid;
        while (one_block()) {
        }
    };
    std::vector<std::thread> helpers;
    if (n_threads > 1) {
        const FlushSubnormals flush;
        gridDim = grid;
        const auto alone_until = Clock::now() + std::chrono::microseconds(50);
        bool more = true;
        while (more && Clock::now() < alone_until) more = one_block();
        try {
            for (int t = 1; more && t < n_threads && next.load() < grid.x; ++t) helpers.emplace_back(all_blocks);
        } catch (const std::system_error&) {
            // no more threads to be had: those there are do the work
        }
    }
    all_blocks();
    for (auto& helper : helpers) helper.join();
}

#endif

}  // namespace

#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)
#define PRECISION_float float32
#define PRECISION_double float64
#define PRECISION PASTE(PRECISION_, REAL)

// Runs a kernel over a grid of blocks. `arguments` points to each argument's value, as for cuLaunchKernel.
// Returns 0, or 1 if there is no such kernel.
extern "C" __attribute__((visibility("default"))) int PASTE(gpusift_launch_, PRECISION)(const char* name, int constant,
                                                                                        const int* grid,
                                                                                        const int* block, int n_threads,
                                                                                        void** arguments) {
    const Thunk kernel = find(name, constant);
    if (!kernel) return 1;
    run(kernel, {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, n_threads, arguments);
    return 0;
}

// The threads that share a launch's blocks.
//
// A team lives for one call of the public interface (the features of one image, say). Its threads start when a launch
// first needs them and end with the call, so a fork, a call from another thread or the end of the interpreter never
// finds a thread in the middle of its work. Between launches the threads spin for a while: waking a sleeping thread
// takes some 50 microseconds, as long as many launches.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>
#if defined(__SSE__)
#include <immintrin.h>
#endif

class Team {
 public:
    explicit Team(int n_threads) : n_helpers(n_threads - 1) {}

    ~Team() {
        {
            const std::lock_guard lock(mutex);
            ended = true;
        }
        wake_up.notify_all();
        for (auto& helper : helpers) helper.join();
    }

    // Admits helpers that are awake to a round; each that joins calls `share` once.
    void open(const std::function<void()>& share) {
        work = &share;
        round.fetch_add(1);
        is_open.store(true);
    }

    // Calls all helpers to the round: starts them, or wakes those that sleep.
    void call() {
        try {
            while (int(helpers.size()) < n_helpers) helpers.emplace_back([this] { help(); });
        } catch (const std::system_error&) {
            n_helpers = int(helpers.size());  // no more threads can be started; the existing ones do the work
        }
        if (n_asleep.load() == 0) return;
        const std::lock_guard lock(mutex);
        wake_up.notify_all();
    }

    // Ends the round and waits for the helpers that joined it. No helper joins afterwards: it increments n_inside
    // before it reads is_open, so either this function waits for it, or it sees that the round is closed.
    void close() {
        is_open.store(false);
        while (n_inside.load() > 0) relax();
    }

    bool has_helpers() const { return n_helpers > 0; }

 private:
    using Clock = std::chrono::steady_clock;
    static constexpr auto patience = std::chrono::microseconds(200);

    static void relax() {
#if defined(__SSE__)
        _mm_pause();
#else
        std::this_thread::yield();
#endif
    }

    void help() {
        unsigned seen = 0;  // the last round that this thread took part in
        while (wait_for_round(seen)) {
            n_inside.fetch_add(1);
            if (is_open.load()) {
                seen = round.load();
                (*work)();
            }
            n_inside.fetch_sub(1);
        }
    }

    // Waits until a round that was not seen is open; false when the team has ended.
    bool wait_for_round(unsigned seen) {
        auto is_new = [&] { return is_open.load() && round.load() != seen; };
        const auto until = Clock::now() + patience;
        while (Clock::now() < until) {
            for (int turn = 0; turn < 32; ++turn) {
                if (is_new()) return true;
                relax();
            }
            if (ended.load()) return false;
        }
        std::unique_lock lock(mutex);
        n_asleep.fetch_add(1);
        wake_up.wait(lock, [&] { return ended.load() || is_new(); });
        n_asleep.fetch_sub(1);
        return !ended.load();
    }

    int n_helpers;
    std::vector<std::thread> helpers;
    const std::function<void()>* work = nullptr;
    std::atomic<unsigned> round{0};  // how many times the team was opened
    std::atomic<bool> is_open{false}, ended{false};
    std::atomic<int> n_inside{0}, n_asleep{0};
    std::mutex mutex;
    std::condition_variable wake_up;
};

// Opens teams many times, with and without calls for help, and checks that every share of the work is done once.
// tests/test_team.py compiles it under ThreadSanitizer.
#include "../../kernels/host/team.hpp"

#include <cstdio>

int main() {
    for (int call = 0; call < 20; ++call) {
        Team team(call % 4 + 1);
        for (int launch = 0; launch < 100; ++launch) {
            const int n = launch % 7 * 50;
            std::vector<int> done(n, 0);
            std::atomic<int> next{0};
            const std::function<void()> share = [&] {
                for (int i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n;) ++done[i];
            };
            team.open(share);
            if (launch % 3) team.call();
            share();
            team.close();
            for (int i = 0; i < n; ++i)
                if (done[i] != 1) return std::printf("share %d was done %d times\n", i, done[i]), 1;
            // long enough, now and then, for the helpers to fall asleep
            if (launch % 25 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
    }
    std::puts("done");
}

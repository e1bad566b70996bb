// The description of a host library, and its teams of threads. Compiled for the baseline processor, so that any
// processor can call it.
#include "team.hpp"

extern "C" {

// The hash of the sources that the library was built from; gpusift/devices/host_library.py looks for it in the file.
__attribute__((visibility("default"))) const char* gpusift_sources() { return "gpusift sources " SOURCE_HASH; }

// The instruction set that it was built for, and whether this processor has it.
__attribute__((visibility("default"))) const char* gpusift_instruction_set() { return INSTRUCTION_SET; }
__attribute__((visibility("default"))) int gpusift_runs_here() {
#ifdef CPU_NAME
    __builtin_cpu_init();
    return __builtin_cpu_supports(CPU_NAME) ? 1 : 0;
#else
    return 1;
#endif
}

// A team of threads for launches that follow each other; see team.hpp.
__attribute__((visibility("default"))) void* gpusift_team(int n_threads) { return new Team(n_threads); }
__attribute__((visibility("default"))) void gpusift_team_end(void* team) { delete static_cast<Team*>(team); }

}  // extern "C"

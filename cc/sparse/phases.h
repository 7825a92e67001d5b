// Work in phases, each of which needs the one before it, on one start of the thread pool.
#ifndef KERAS_LTH_CC_SPARSE_PHASES_H_
#define KERAS_LTH_CC_SPARSE_PHASES_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "cc/sparse/spmm.h"

namespace keras_lth::sparse {

// Threads for so many multiplications: those that `run` names, else as many as have enough to do to be worth waking. A
// small product is computed by its caller alone.
unsigned ThreadsFor(const Run& run, double multiplications);

struct Phase {
  std::int64_t tasks;
  std::function<void(std::int64_t task)> body;
};

// Runs every task of a phase once, in any order, on at most `threads` threads, before the first one of the next phase.
// A thread begins with the same part of every phase, so it mostly reads what it wrote in the phase before.
// The first exception of a body is thrown again here, after the tasks at work have ended.
void RunPhases(unsigned threads, const std::vector<Phase>& phases);

}  // namespace keras_lth::sparse

#endif  // KERAS_LTH_CC_SPARSE_PHASES_H_

// Fork-join over numbered items. No thread outlives a call, so a process may fork between calls.
#ifndef KERAS_LTH_CC_THREADS_FOR_EACH_H_
#define KERAS_LTH_CC_THREADS_FOR_EACH_H_

#include <cstddef>
#include <functional>

namespace keras_lth::threads {

// Processors this process may run on, at least 1.
unsigned Available();

// Calls `body(worker, item)` once for every item in [0, items), on at most `workers` threads, the caller among them.
// `worker` is below `workers`. The order of items is not defined. The first exception of a body is thrown again here.
void ForEach(unsigned workers, std::size_t items, const std::function<void(unsigned, std::size_t)>& body);

}  // namespace keras_lth::threads

#endif  // KERAS_LTH_CC_THREADS_FOR_EACH_H_

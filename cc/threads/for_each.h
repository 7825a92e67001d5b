// The process-wide thread pool: started at first use, asleep when idle, safe to fork around and to nest.
#ifndef KERAS_LTH_CC_THREADS_FOR_EACH_H_
#define KERAS_LTH_CC_THREADS_FOR_EACH_H_

#include <cstddef>
#include <functional>

namespace keras_lth::threads {

// Processors this process may run on, at least 1.
unsigned Available();

// Threads a call may use: what SetSize set, else KERAS_LTH_THREADS, else Available().
// Throws std::invalid_argument if KERAS_LTH_THREADS is not a number from 1 to 1024.
unsigned Size();

// Sets Size() for the whole process; 0 goes back to the environment.
void SetSize(unsigned size);

// Calls `body(worker, item)` once for every item in [0, items), on at most `workers` threads, the caller among them;
// 0 means Size(). `worker` is below max(1, workers), or below Size(). Neighbours stay with one worker as far as all end
// together (shares.h); otherwise the order of items is not defined. The first exception of a body is thrown again here.
// Inside a body it runs on the thread that called it alone, as worker 0.
void ForEach(unsigned workers, std::size_t items, const std::function<void(unsigned, std::size_t)>& body);

}  // namespace keras_lth::threads

#endif  // KERAS_LTH_CC_THREADS_FOR_EACH_H_

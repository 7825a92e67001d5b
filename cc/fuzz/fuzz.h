// The targets: each decodes the arguments of one part of the core, calls it and compares what comes out with loops.
#ifndef KERAS_LTH_CC_FUZZ_FUZZ_H_
#define KERAS_LTH_CC_FUZZ_FUZZ_H_

#include <string>

#include "cc/fuzz/bytes.h"
#include "cc/isa/isa.h"

namespace keras_lth::fuzz {

enum class Outcome { kDone, kRefused };

Outcome Select(Bytes* bytes);
Outcome Shards(Bytes* bytes);
Outcome Groups(Bytes* bytes);
Outcome Threads(Bytes* bytes);
Outcome Product(Bytes* bytes);
Outcome Convolution(Bytes* bytes);
Outcome Chain(Bytes* bytes);
Outcome Normalization(Bytes* bytes);

// Ends the process, so that the fuzzer keeps the input.
[[noreturn]] void Wrong(const std::string& what);

inline void Expect(bool ok, const std::string& what) {
  if (!ok) Wrong(what);
}

// One of the instruction sets that this processor runs.
isa::Level Level(Bytes* bytes);

// Most often a few; sometimes more than there are processors; 0 now and then.
unsigned Workers(Bytes* bytes);

// How often each target ran, and how often it was right to refuse.
void PrintCounts();

}  // namespace keras_lth::fuzz

#endif  // KERAS_LTH_CC_FUZZ_FUZZ_H_

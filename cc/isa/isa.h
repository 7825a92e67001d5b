// Which instruction sets this processor runs, and which one is used. Each room of kernels has one table a level.
#ifndef KERAS_LTH_CC_ISA_ISA_H_
#define KERAS_LTH_CC_ISA_ISA_H_

#include <string>
#include <vector>

namespace keras_lth::isa {

enum class Level {
  kPortable,  // the compiler's baseline
  kAvx2,      // AVX2, FMA, F16C, BMI, BMI2, POPCNT
  kAvx512,    // those and AVX-512 F, BW, DQ, VL
};

// "portable", "avx2" or "avx512".
const char* Name(Level level);

// What this processor and operating system run, best first; the last is kPortable.
const std::vector<Level>& Supported();

// The level called `name`; an empty name means KERAS_LTH_ISA where that is set, else the best.
// Throws std::invalid_argument for a name that is unknown or that the processor cannot run.
Level Choose(const std::string& name);

}  // namespace keras_lth::isa

#endif  // KERAS_LTH_CC_ISA_ISA_H_

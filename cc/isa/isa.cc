#include "cc/isa/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cstdlib>
#include <stdexcept>

namespace keras_lth::isa {

namespace {

std::vector<Level> Detect() {
  std::vector<Level> levels;
#if defined(__x86_64__)
  __builtin_cpu_init();
  // Clang's __builtin_cpu_supports does not know F16C before version 19.
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  const bool f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && f16c &&
                    __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2 && avx512) levels.push_back(Level::kAvx512);
  if (avx2) levels.push_back(Level::kAvx2);
#endif
  levels.push_back(Level::kPortable);
  return levels;
}

}  // namespace

const char* Name(Level level) {
  switch (level) {
    case Level::kPortable:
      return "portable";
    case Level::kAvx2:
      return "avx2";
    case Level::kAvx512:
      return "avx512";
  }
  return "unknown";
}

const std::vector<Level>& Supported() {
  // Once: a virtual machine takes microseconds to say what its processor is. Never destroyed, as threads may outlive it.
  static const std::vector<Level>& levels = *new std::vector<Level>(Detect());
  return levels;
}

Level Choose(const std::string& name) {
  std::string wanted = name;
  if (wanted.empty()) {
    const char* forced = std::getenv("KERAS_LTH_ISA");
    if (forced != nullptr) wanted = forced;
  }
  const std::vector<Level>& levels = Supported();
  if (wanted.empty()) return levels.front();
  std::string names;
  for (const Level level : levels) {
    if (wanted == Name(level)) return level;
    names += (names.empty() ? "" : ", ") + std::string(Name(level));
  }
  throw std::invalid_argument("instruction set '" + wanted + "' (KERAS_LTH_ISA) is not one this processor runs: " +
                              names);
}

}  // namespace keras_lth::isa

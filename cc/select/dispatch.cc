#include <cstdlib>
#include <stdexcept>

#include "cc/select/kernels.h"

namespace keras_lth::select {

namespace portable {
const Kernels& Table();
}
namespace avx2 {
const Kernels& Table();
}
namespace avx512 {
const Kernels& Table();
}

namespace {

// Best first. A set is listed only if the processor and the operating system run it.
std::vector<const Kernels*> Runnable() {
  std::vector<const Kernels*> tables;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool bits = __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  const bool avx2 = bits && __builtin_cpu_supports("avx2");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    tables.push_back(&avx512::Table());
  }
  if (avx2) tables.push_back(&avx2::Table());
#endif
  tables.push_back(&portable::Table());
  return tables;
}

}  // namespace

std::vector<std::string> Supported() {
  std::vector<std::string> names;
  for (const Kernels* table : Runnable()) names.emplace_back(table->name);
  return names;
}

const Kernels& Choose(const std::string& name) {
  std::string wanted = name;
  if (wanted.empty()) {
    const char* forced = std::getenv("KERAS_LTH_ISA");
    if (forced != nullptr) wanted = forced;
  }
  const std::vector<const Kernels*> tables = Runnable();
  if (wanted.empty()) return *tables.front();
  std::string names;
  for (const Kernels* table : tables) {
    if (wanted == table->name) return *table;
    names += (names.empty() ? "" : ", ") + std::string(table->name);
  }
  throw std::invalid_argument("instruction set '" + wanted + "' (KERAS_LTH_ISA) is not one this processor runs: " +
                              names);
}

}  // namespace keras_lth::select

#include "cc/tf/xla.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "cc/isa/isa.h"
#include "cc/tf/c_api.h"
#include "cc/tf/problem.h"

namespace keras_lth::tf {

namespace {

// What XLA passes besides addresses: "size op relu bfloat16 arguments", then for each argument its rank
// and dims, in decimals.
class Words {
 public:
  Words(const char* text, std::size_t length) : text_(text, length), next_(text_.c_str()) {}

  std::int64_t Next() {
    char* end = nullptr;
    const long long value = std::strtoll(next_, &end, 10);
    if (end == next_) throw std::invalid_argument("backend_config is not one of keras_lth's");
    next_ = end;
    return value;
  }

  std::size_t Count(std::int64_t most) {
    const std::int64_t value = Next();
    if (value < 0 || value > most) throw std::invalid_argument("backend_config is not one of keras_lth's");
    return static_cast<std::size_t>(value);
  }

 private:
  const std::string text_;
  const char* next_;
};

void Run(Words* words, float* out, const void** in) {
  const auto op = static_cast<Op>(words->Count(kOps - 1));
  const bool relu = words->Next() != 0;
  const bool bfloat16 = words->Next() != 0;
  std::vector<View> arguments(words->Count(kExtra + 1));
  if (arguments.size() < kExtra) throw std::invalid_argument("backend_config is not one of keras_lth's");
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    Dims dims(words->Count(254));
    for (std::int64_t& dim : dims) dim = words->Next();
    arguments[i] = {in[i], dims, bfloat16 && i == 1};
  }
  const Problem problem = Prepare(op, arguments, relu);
  // At each call, as nobody holds XLA's buffers: what is read of them, in the pass that brings it into the cache.
  CheckIndices(problem.structure, ReadsOf(op));
  if (OutputBytes(problem) > 0) Compute(problem, isa::Choose(""), out);
}

// API_VERSION_STATUS_RETURNING_UNIFIED. Where TensorFlow exports no function that sets the status, a failure (no memory,
// or indices that were tampered with) shows as NaN in the result and a line on stderr.
void Target(void* out, const void** in, const char* config, std::size_t length, void* status) noexcept {
  std::int64_t count = 0;
  try {
    Words words(config, length);
    count = words.Next();
    Run(&words, static_cast<float*>(out), in);
  } catch (const std::exception& error) {
    using SetFailure = void (*)(void*, const char*, std::size_t);
    const auto set_failure = reinterpret_cast<SetFailure>(FindSymbol("XlaCustomCallStatusSetFailure"));
    if (set_failure != nullptr) return set_failure(status, error.what(), std::strlen(error.what()));
    std::fprintf(stderr, "keras_lth: a sparse product under XLA failed: %s\n", error.what());
    std::fill_n(static_cast<float*>(out), count, std::numeric_limits<float>::quiet_NaN());
  }
}

}  // namespace

bool RegisterXlaTarget() {
  // xla::CustomCallTargetRegistry::Global() and ::Register(const std::string& name, void*, const std::string& platform).
  using Global = void* (*)();
  using Register = void (*)(void*, const std::string&, void*, const std::string&);
  const auto global = reinterpret_cast<Global>(FindSymbol("_ZN3xla24CustomCallTargetRegistry6GlobalEv"));
  const auto add = reinterpret_cast<Register>(
      FindSymbol("_ZN3xla24CustomCallTargetRegistry8RegisterERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEEPvS8_"));
  if (global == nullptr || add == nullptr) return false;
  add(global(), kTarget, reinterpret_cast<void*>(&Target), "Host");
  return true;
}

}  // namespace keras_lth::tf

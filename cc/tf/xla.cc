#include "cc/tf/xla.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "cc/isa/isa.h"
#include "cc/sparse/columns.h"
#include "cc/tf/c_api.h"
#include "cc/tf/problem.h"

namespace keras_lth::tf {

namespace {

[[noreturn]] void RefuseWords() { throw std::invalid_argument("backend_config is not one of keras_lth's"); }

// What XLA passes besides addresses, in decimals: "results", the size of each, "call flag m arguments", then for each
// argument whether it is of 16 bits, its rank and dims. A call is an Op; or one of Call, for m samples. The flag is ReLU,
// or that the input's gradient is gated.
class Words {
 public:
  Words(const char* text, std::size_t length) : text_(text, length), next_(text_.c_str()) {}

  std::int64_t Next() {
    char* end = nullptr;
    const long long value = std::strtoll(next_, &end, 10);
    if (end == next_) RefuseWords();
    next_ = end;
    return value;
  }

  std::size_t Count(std::int64_t most) {
    const std::int64_t value = Next();
    if (value < 0 || value > most) RefuseWords();
    return static_cast<std::size_t>(value);
  }

 private:
  const std::string text_;
  const char* next_;
};

// Of columns: the three products, of which the gradient of the values is also that of the bias; x[m, features] as
// columns, and back; and all gradients at once.
enum class Call : std::size_t { kForward = kOps, kGradInput, kGradValues, kPack, kUnpack, kBackward };

constexpr std::int64_t kMostResults = 3;

void Copy(bool pack, std::int64_t m, const View& from, float* out) {
  const bool rows = pack && from.dims.size() == 2 && from.dims[0] == m;
  if (!rows && (pack || from.dims.size() != 3 || from.dims != ColumnDims(m, from.dims[1]))) {
    throw std::invalid_argument("x has shape " + Text(from.dims) + ", for " + std::to_string(m) + " samples");
  }
  const auto* data = static_cast<const float*>(from.data);
  (pack ? sparse::PackColumns : sparse::UnpackColumns)(data, m, from.dims[1], out, {isa::Choose(""), 0});
}

void Differentiate(const Problem& problem, const View& x, bool gated, const std::vector<float*>& out) {
  if (x.dims != problem.output) throw std::invalid_argument("x has shape " + Text(x.dims));
  const sparse::Values values{problem.second.data,
                              problem.second.half ? sparse::Storage::kBfloat16 : sparse::Storage::kFloat32};
  sparse::ColumnsBackward(problem.structure, values, static_cast<const float*>(x.data),
                          static_cast<const float*>(problem.first.data), problem.m, gated, {out[0], out[1], out[2]},
                          {isa::Choose(""), 0});
}

void Run(Words* words, const std::vector<float*>& out, const void** in) {
  const std::size_t number = words->Count(static_cast<std::int64_t>(Call::kBackward));
  const auto call = static_cast<Call>(number);
  const bool columns = number >= kOps, copies = call == Call::kPack || call == Call::kUnpack;
  const bool flag = words->Next() != 0;
  const std::int64_t m = words->Next();
  std::vector<View> arguments(words->Count(kExtra + 1));
  const std::size_t results = call == Call::kBackward ? 3 : call == Call::kGradValues ? 2 : 1;
  const std::size_t fewest = copies ? 1 : call == Call::kBackward ? kExtra + 1 : kExtra;
  if (m < 0 || arguments.size() < fewest || out.size() != results) RefuseWords();
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const bool half = words->Next() != 0;
    Dims dims(words->Count(254));
    for (std::int64_t& dim : dims) dim = words->Next();
    arguments[i] = {in[i], dims, half};
  }
  if (copies) return Copy(call == Call::kPack, m, arguments[0], out[0]);
  const Op op = call == Call::kBackward ? Op::kMatmulGradInput : static_cast<Op>(columns ? number - kOps : number);
  const Problem problem = Prepare(op, arguments, flag && IsForward(op), columns ? m : kRowMajor);
  // At each call, as nobody holds XLA's buffers: what is read of them, in the pass that brings it into the cache.
  const sparse::Structure& structure = problem.structure;
  const bool singles = structure.taps == 1 && structure.block_rows == 1 && structure.block_cols == 1;
  CheckIndices(structure, call == Call::kBackward ? sparse::Reads::kBoth : ReadsOf(op),
               singles && !IsConv(op) ? sparse::Places::kLeft : sparse::Places::kRead);
  if (call == Call::kBackward) return Differentiate(problem, arguments[kExtra], flag, out);
  if (call == Call::kGradValues) {
    return sparse::SampleColumns(problem.structure, static_cast<const float*>(problem.first.data),
                                 static_cast<const float*>(problem.second.data), m, out[0], out[1],
                                 {isa::Choose(""), 0});
  }
  if (OutputBytes(problem) > 0) Compute(problem, isa::Choose(""), out[0]);
}

// API_VERSION_STATUS_RETURNING_UNIFIED; `result` is an array of addresses where there are several. Where TensorFlow
// exports no function that sets the status, a failure (no memory, or indices that were tampered with) shows as NaN in the
// results and a line on stderr.
void Target(void* result, const void** in, const char* config, std::size_t length, void* status) noexcept {
  std::vector<float*> out;
  std::vector<std::int64_t> sizes;
  try {
    Words words(config, length);
    sizes.resize(words.Count(kMostResults));
    if (sizes.empty()) RefuseWords();
    for (std::int64_t& size : sizes) size = words.Next();
    if (sizes.size() == 1) {
      out = {static_cast<float*>(result)};
    } else {
      out.assign(static_cast<float**>(result), static_cast<float**>(result) + sizes.size());
    }
    Run(&words, out, in);
  } catch (const std::exception& error) {
    using SetFailure = void (*)(void*, const char*, std::size_t);
    const auto set_failure = reinterpret_cast<SetFailure>(FindSymbol("XlaCustomCallStatusSetFailure"));
    const std::string what = Named(error.what());
    if (set_failure != nullptr) return set_failure(status, what.c_str(), what.size());
    std::fprintf(stderr, "keras_lth: a sparse product under XLA failed: %s\n", what.c_str());
    for (std::size_t i = 0; i < out.size(); ++i) {
      std::fill_n(out[i], sizes[i], std::numeric_limits<float>::quiet_NaN());
    }
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

#include "cc/fuzz/fuzz.h"

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <vector>

namespace keras_lth::fuzz {

namespace {

struct Target {
  const char* name;
  Outcome (*run)(Bytes*);
  std::size_t runs = 0;
  std::size_t refused = 0;
};

Target targets[] = {
    {"select", Select},   {"shards", Shards},   {"groups", Groups},
    {"threads", Threads}, {"product", Product}, {"convolution", Convolution}, {"chain", Chain},
    {"normalization", Normalization},
};

}  // namespace

void Wrong(const std::string& what) {
  std::printf("WRONG: %s\n", what.c_str());
  std::fflush(stdout);
  std::abort();
}

isa::Level Level(Bytes* bytes) {
  static const std::vector<isa::Level> levels = isa::Supported();
  return levels[static_cast<std::size_t>(bytes->Between(0, static_cast<std::int64_t>(levels.size()) - 1))];
}

unsigned Workers(Bytes* bytes) { return bytes->OneOf({1U, 2U, 3U, 2U, 3U, 0U, 5U, 33U}); }

void PrintCounts() {
  for (const Target& target : targets) {
    std::printf("%s: %zu runs, %zu refused\n", target.name, target.runs, target.refused);
  }
}

}  // namespace keras_lth::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  namespace fuzz = keras_lth::fuzz;
  fuzz::Bytes bytes(data, size);
  fuzz::Target& target = fuzz::targets[bytes.Word(1) % std::size(fuzz::targets)];
  try {
    target.refused += target.run(&bytes) == fuzz::Outcome::kRefused;
  } catch (const std::exception& error) {
    fuzz::Wrong(std::string(target.name) + " throws " + error.what());
  }
  ++target.runs;
  return 0;
}

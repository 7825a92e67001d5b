// A main for compilers without libFuzzer: inputs from a seeded generator, or the files given, with libFuzzer's options.
//   fuzz [-seed=1] [-max_total_time=seconds] [-runs=number] [file ...]
// An input that ends the process is left in the file crash-<run>.
#include <csignal>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "cc/fuzz/fuzz.h"

extern "C" {
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
// In the sanitizers' libraries only.
__attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)());
}

namespace {

std::vector<std::uint8_t> input;
std::size_t run = 0;

void Keep() {
  const std::string name = "crash-" + std::to_string(run);
  std::ofstream(name, std::ios::binary).write(reinterpret_cast<const char*>(input.data()),
                                              static_cast<std::streamsize>(input.size()));
  std::fprintf(stderr, "the input is in %s\n", name.c_str());
}

void Killed(int number) {
  Keep();
  std::signal(number, SIG_DFL);
  std::raise(number);
}

std::vector<std::uint8_t> Made(std::mt19937_64* random) {
  std::vector<std::uint8_t> bytes(1 + (*random)() % 96);
  for (std::uint8_t& byte : bytes) {
    const std::uint64_t kind = (*random)() % 8, any = (*random)() >> 8;
    byte = static_cast<std::uint8_t>(kind == 0 ? 0 : kind == 1 ? 255 : kind <= 3 ? any % 8 : any);
  }
  bytes[0] = static_cast<std::uint8_t>((*random)());
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  double seconds = 10.0;
  std::size_t runs = SIZE_MAX;
  std::uint64_t seed = 1;
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const std::size_t equals = word.find('=');
    const std::string name = word.substr(0, equals), value = equals == std::string::npos ? "" : word.substr(equals + 1);
    if (name == "-seed") {
      seed = std::stoull(value);
    } else if (name == "-max_total_time") {
      seconds = std::stod(value);
    } else if (name == "-runs") {
      runs = std::stoull(value);
    } else if (word[0] == '-') {
      std::fprintf(stderr, "unknown option %s\n", argv[i]);
      return 2;
    } else {
      files.push_back(word);
    }
  }
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(Keep);
  std::signal(SIGABRT, Killed);
  if (!files.empty()) {
    for (const std::string& file : files) {
      std::ifstream stream(file, std::ios::binary);
      if (!stream) {
        std::fprintf(stderr, "cannot read %s\n", file.c_str());
        return 2;
      }
      input.assign(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
      LLVMFuzzerTestOneInput(input.data(), input.size());
    }
  } else {
    std::mt19937_64 random(seed);
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    for (; run < runs && std::chrono::steady_clock::now() < end; ++run) {
      input = Made(&random);
      LLVMFuzzerTestOneInput(input.data(), input.size());
    }
  }
  keras_lth::fuzz::PrintCounts();
  return 0;
}

// Which instruction set is chosen. Prints what fails and returns 1, or 0 when nothing does.
#include "cc/isa/isa.h"

#include <cstdio>
#include <stdexcept>
#include <string>

#include "cc/test/formats.h"

namespace {

using keras_lth::test::Expect;

void CheckChoice() {
  try {
    keras_lth::isa::Choose("sse9");
    Expect(false, "an unknown instruction set is accepted");
  } catch (const std::invalid_argument& error) {
    Expect(std::string(error.what()).find("portable") != std::string::npos, error.what());
  }
  Expect(keras_lth::isa::Supported().back() == keras_lth::isa::Level::kPortable, "portable is always there");
}

}  // namespace

int main() {
  CheckChoice();
  std::printf("%d failures\n", keras_lth::test::failures);
  return keras_lth::test::failures == 0 ? 0 : 1;
}

// The compiler's baseline: runs everywhere.
#include <cstdint>
#include <type_traits>
#include <utility>

#include "cc/sparse/kernels.h"

namespace keras_lth::sparse::portable {

namespace {

#define KERAS_LTH_LANES 4
#define KERAS_LTH_REGISTERS 16
#define KERAS_LTH_KERNELS_NAME "portable"
#include "cc/sparse/kernels_body.inc"

}  // namespace

const Kernels& Table() { return kKernels; }

}  // namespace keras_lth::sparse::portable

// The compiler's baseline: runs everywhere.
#include <cstdint>
#include <type_traits>
#include <utility>

#include "cc/chain/kernels.h"

namespace keras_lth::chain::portable {

namespace {

#define KERAS_LTH_LANES 4
#define KERAS_LTH_REGISTERS 16
#include "cc/chain/kernels_body.inc"

}  // namespace

const Kernels& Table() { return kKernels; }

}  // namespace keras_lth::chain::portable

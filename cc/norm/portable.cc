// The compiler's baseline: runs everywhere.
#include <cstdint>

#include "cc/norm/kernels.h"

namespace keras_lth::norm::portable {

namespace {

#include "cc/norm/kernels_body.inc"

}  // namespace

const Kernels& Table() { return kKernels; }

}  // namespace keras_lth::norm::portable

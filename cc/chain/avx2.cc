// AVX2 and FMA; compiled with these flags on x86-64, empty elsewhere.
#if defined(__AVX2__)
#include <cstdint>
#include <type_traits>
#include <utility>

#include "cc/chain/kernels.h"

namespace keras_lth::chain::avx2 {

namespace {

#define KERAS_LTH_LANES 8
#define KERAS_LTH_REGISTERS 16
#include "cc/chain/kernels_body.inc"

}  // namespace

const Kernels& Table() { return kKernels; }

}  // namespace keras_lth::chain::avx2
#endif  // __AVX2__

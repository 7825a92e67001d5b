// AVX-512 F, BW, DQ and VL; compiled with these flags on x86-64, empty elsewhere.
#if defined(__AVX512BW__)
#include <cstdint>
#include <type_traits>
#include <utility>

#include "cc/chain/kernels.h"

namespace keras_lth::chain::avx512 {

namespace {

#define KERAS_LTH_LANES 16
#define KERAS_LTH_REGISTERS 32
#include "cc/chain/kernels_body.inc"

}  // namespace

const Kernels& Table() { return kKernels; }

}  // namespace keras_lth::chain::avx512
#endif  // __AVX512BW__

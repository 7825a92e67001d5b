// AVX2 and FMA; compiled with these flags on x86-64, empty elsewhere.
#if defined(__AVX2__)
#include <cstdint>

#include "cc/norm/kernels.h"

namespace keras_lth::norm::avx2 {

namespace {

#include "cc/norm/kernels_body.inc"

}  // namespace

const Kernels& Table() { return kKernels; }

}  // namespace keras_lth::norm::avx2
#endif  // __AVX2__

#include "cc/isa/isa.h"
#include "cc/norm/kernels.h"

namespace keras_lth::norm {

namespace portable {
const Kernels& Table();
}
namespace avx2 {
const Kernels& Table();
}
namespace avx512 {
const Kernels& Table();
}

const Kernels& KernelsFor(isa::Level level) {
#if defined(__x86_64__)
  if (level == isa::Level::kAvx512) return avx512::Table();
  if (level == isa::Level::kAvx2) return avx2::Table();
#endif
  (void)level;
  return portable::Table();
}

}  // namespace keras_lth::norm

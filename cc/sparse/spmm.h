// Y = X W for a sparse W, and both gradients. Row-major, float32; sums in float32, in an order that depends on the
// structure and the instruction set only: the same bits for any number of threads.
#ifndef KERAS_LTH_CC_SPARSE_SPMM_H_
#define KERAS_LTH_CC_SPARSE_SPMM_H_

#include <cstdint>

#include "cc/isa/isa.h"
#include "cc/sparse/structure.h"

namespace keras_lth::sparse {

enum class Storage { kFloat32, kBfloat16 };

// Stored blocks [room, block_rows, block_cols]; entries that fill up the last blocks must be 0, and those behind the
// last block may be anything.
struct Values {
  const void* data;
  Storage storage;
};

struct Epilogue {
  const float* bias = nullptr;  // [cols]
  bool relu = false;
};

// How to run: the instruction set, and threads (0: up to threads::Size(), fewer where the work is small).
struct Run {
  isa::Level level;
  unsigned threads = 0;
};

// y[m, cols] = relu(x[m, rows] W + bias). m may be 0.
void Multiply(const Structure& structure, const Values& values, const float* x, std::int64_t m,
              const Epilogue& epilogue, float* y, const Run& run);

// dx[m, rows] = dy[m, cols] W^T.
void MultiplyTransposed(const Structure& structure, const Values& values, const float* dy, std::int64_t m, float* dx,
                        const Run& run);

// dvalues[room, block_rows, block_cols] = X^T dY where a weight is stored; 0 in what fills up the last blocks, and behind
// the last one.
void SampleProduct(const Structure& structure, const float* x, const float* dy, std::int64_t m, float* dvalues,
                   const Run& run);

}  // namespace keras_lth::sparse

#endif  // KERAS_LTH_CC_SPARSE_SPMM_H_

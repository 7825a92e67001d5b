// What one of the ops computes: its arguments as plain views, checked, and the kernel that belongs to it. Shared by the
// TensorFlow kernels and the XLA custom call.
#ifndef KERAS_LTH_CC_TF_PROBLEM_H_
#define KERAS_LTH_CC_TF_PROBLEM_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "cc/isa/isa.h"
#include "cc/sparse/conv.h"
#include "cc/sparse/spmm.h"
#include "cc/sparse/structure.h"

namespace keras_lth::tf {

enum class Op { kMatmul, kMatmulGradInput, kMatmulGradValues, kConv2d, kConv2dGradInput, kConv2dGradValues };
inline constexpr int kOps = 6;

inline bool IsConv(Op op) { return op >= Op::kConv2d; }
inline bool IsForward(Op op) { return op == Op::kMatmul || op == Op::kConv2d; }

// The arguments of every op, by position. An op has two tensors of numbers, then the structure:
//   forward     x, values, ..., geometry, optionally bias
//   GradInput   dy, values, ..., geometry, and for the convolution x, of which only the shape is read
//   GradValues  x, dy, ..., geometry
inline constexpr std::size_t kIndices = 2;  // starts, others, row_starts, row_others, row_places
inline constexpr std::size_t kIndexArrays = 5;
inline constexpr std::size_t kGeometry = 7;
inline constexpr std::size_t kExtra = 8;

using Dims = std::vector<std::int64_t>;

struct View {
  const void* data = nullptr;
  Dims dims;
  bool half = false;  // of 16 bits: values in bfloat16, numbers in uint16; everything else has the type of its position
};

// The sizes of the kernel. They travel as the dims of an empty tensor, [0, rows, cols, block_rows, block_cols], and for
// a convolution [..., kernel_height, kernel_width, stride_height, stride_width, same], because a shape function of the C
// API reads shapes but not attributes.
struct Geometry {
  std::int64_t rows, cols;
  std::int32_t block_rows, block_cols;
  std::int32_t kernel_height = 1, kernel_width = 1;
  std::int32_t stride_height = 1, stride_width = 1;
  bool same = false;

  // Throws std::invalid_argument.
  static Geometry Parse(const Dims& dims, bool conv);

  std::int64_t Taps() const { return std::int64_t{kernel_height} * kernel_width; }
  // The convolution of an x [batch, height, width, rows]; throws where the kernel is larger.
  sparse::ConvShape Convolution(std::int64_t batch, std::int64_t height, std::int64_t width) const;
};

struct Problem {
  Op op;
  sparse::Structure structure;
  sparse::ConvShape conv;  // of a convolution
  std::int64_t m;          // rows of x, of a product
  bool columns;            // of a product: x, dy and y are columns (cc/sparse/columns.h)
  View first, second;
  sparse::Epilogue epilogue;
  Dims output;
};

// Columns of m samples, [tiles, features, step].
Dims ColumnDims(std::int64_t m, std::int64_t features);

inline constexpr std::int64_t kRowMajor = -1;

// Checks shapes, not indices. `m`: a product's samples where its x and dy are columns, or kRowMajor. Throws
// std::invalid_argument that begins with the argument's name.
Problem Prepare(Op op, const std::vector<View>& arguments, bool relu, std::int64_t m = kRowMajor);

// What the products throw of a structure's lists, with the arguments' names instead.
std::string Named(std::string what);

// sparse::Check, with the arguments' names in what it throws.
void CheckIndices(const sparse::Structure& structure, sparse::Reads reads,
                  sparse::Places places = sparse::Places::kRead);

// The lists that an op reads.
sparse::Reads ReadsOf(Op op);

// Bytes of the float32 output; throws std::invalid_argument beyond 2^62.
std::size_t OutputBytes(const Problem& problem);

// Computes into `output`, of problem.output. The indices that the op reads must have passed CheckIndices.
void Compute(const Problem& problem, isa::Level level, float* output);

// "[2,3]"
std::string Text(const Dims& dims);

}  // namespace keras_lth::tf

#endif  // KERAS_LTH_CC_TF_PROBLEM_H_

// The table of inner loops that each instruction set fills.
//
// Most work on feature-major tiles: a feature is a contiguous run of `width` floats, one for each sample (a row of the
// batch). Weights are broadcast there, so any block serves every instruction set, in both directions. Nothing needs to
// be aligned; runs that start at multiples of 64 bytes are faster.
#ifndef KERAS_LTH_CC_SPARSE_KERNELS_H_
#define KERAS_LTH_CC_SPARSE_KERNELS_H_

#include <cstdint>

#include "cc/isa/isa.h"
#include "cc/sparse/conv_kernels.h"
#include "cc/sparse/index.h"
#include "cc/sparse/structure.h"

namespace keras_lth::sparse {

// A run's width is a multiple of this, filled up with zeros.
inline constexpr std::int64_t kWidthUnit = 4;
// Samples that multiply_rows and dot_rows take at most.
inline constexpr std::int64_t kRows = 4;

// Stored blocks of one group of outputs, and the inputs they meet. Entry e has `depth` inputs; input i of it begins at
//   in + index[e] * scale + i * in_step.
// The weight between input i and output j is
//   weights[Id(e) * block + i * weight_in + j * weight_out].
// weight_out is 1 (blocks as they are stored), or weight_in is 1 (blocks transposed, for the gradient of the input).
struct Entries {
  std::int64_t count;
  Index index;                // [count]
  Index places;               // [count], or null; with `firsts`, as in a BlockList
  const std::int64_t* firsts;
  std::int64_t depth;
  std::int64_t block;
  std::int64_t weight_in, weight_out;
  const float* in;
  std::int64_t scale, in_step;
  std::int64_t behind;  // entries of other groups that follow in the lists

  [[gnu::always_inline]] std::int64_t Id(std::int64_t e) const {
    return places == nullptr ? e : firsts[index[e]] + places[e];
  }
};

// Single weights of many outputs: those of output j are the entries starts[j] ... starts[j + 1] - 1 of `index`. Feature i
// is the run in + i * scale.
struct Singles {
  const std::int64_t* starts;  // [outputs + 1]
  Index index;
  const float* in;
  std::int64_t scale;
};

// What becomes of an output's sum: plus its bias; then ReLU, or 0 where `gate`, a run of its own for each output as `out`
// has it, is not above 0. Null: none.
struct Finish {
  const float* bias = nullptr;
  bool relu = false;
  const float* gate = nullptr;
};

// What a pass over indices finds: whether one is not in 0 ... limit - 1, and how many are not above the one before them.
struct Scan {
  bool outside;
  std::int64_t descents;
};

struct Kernels {
  const char* name;
  std::int64_t lanes;  // floats of a vector

  // `count` and `limit` are below 2^31.
  Scan (*scan)(const Index& items, std::int64_t count, std::int64_t limit);

  // out[j * out_step + t] = the sum over entries and inputs of weight * input[t], for j < outputs, t < width.
  void (*multiply)(const Entries& entries, const float* weights, std::int64_t outputs, std::int64_t width, float* out,
                   std::int64_t out_step);

  // The same for single weights: entry e has the weight weights[e - starts[0]].
  void (*multiply_singles)(const Singles& singles, const float* weights, std::int64_t outputs, std::int64_t width,
                           const Finish& finish, float* out, std::int64_t out_step);

  // Few samples, vectors along the outputs: out[t * out_step + j] = the sum of weight * in[t * sample_step + ...], for
  // t < samples <= kRows, j < outputs, a multiple of 4. weight_out is 1.
  void (*multiply_rows)(const Entries& entries, const float* weights, std::int64_t outputs, std::int64_t samples,
                        std::int64_t sample_step, float* out, std::int64_t out_step);

  // Few samples, vectors along the inputs: as multiply_rows where weight_in is 1, depth a multiple of 4, any outputs.
  void (*dot_rows)(const Entries& entries, const float* weights, std::int64_t outputs, std::int64_t samples,
                   std::int64_t sample_step, float* out, std::int64_t out_step);

  // The sampled gradient of the weights: dweights[e * block + i * weight_in + j] = (add ? itself : 0) + the sum over
  // t < width of input[t] * grads[j * width + t], for every entry, i < depth, j < outputs. No places; weight_out is 1.
  void (*sample)(const Entries& entries, const float* grads, std::int64_t outputs, std::int64_t width, bool add,
                 float* dweights);

  // The same for single weights, as far as their features are below `limit`: output j has the gradient
  // grads + j * grad_step, entry e the weight dweights[e]; next[j] goes from the first entry to the first one left.
  void (*sample_singles)(const Singles& singles, const float* grads, std::int64_t grad_step, std::int64_t outputs,
                         std::int64_t width, std::int32_t limit, std::int64_t* next, bool add, float* dweights);

  // out[j] = (add ? itself : 0) + the sum over t < width of rows[j * step + t], for j < count.
  void (*sum_rows)(const float* rows, std::int64_t step, std::int64_t count, std::int64_t width, bool add, float* out);

  // The same as outer products of panels [samples, depth] and [samples, grad_step], sample after sample: input i of
  // entry e at sample t is in[index[e] * scale + t * depth + i]. Outputs are filled up to grad_step, a multiple of 4.
  void (*sample_panels)(const Entries& entries, const float* grads, std::int64_t grad_step, std::int64_t outputs,
                        std::int64_t samples, bool add, float* dweights);

  // Row-major to feature-major: out[f * width + t] = t < rows ? x[t * x_step + f] : 0, for f < features, t < width.
  void (*pack)(const float* x, std::int64_t x_step, std::int64_t rows, std::int64_t features, float* out,
               std::int64_t width);

  // And back: y[t * y_step + f] = relu(in[f * width + t] + bias[f]), for t < rows <= width, f < features. `bias` may be
  // null.
  void (*unpack)(const float* in, std::int64_t width, std::int64_t rows, std::int64_t features, const float* bias,
                 bool relu, float* y, std::int64_t y_step);

  // Weights of `count` blocks one after the other: out[e * block + ...] = values[list.Id(begin + e) * block + ...]. The
  // values are those of `stored` blocks; of single weights that a place leads to outside of them there need be none, and
  // the answer is whether there was no such place.
  bool (*collect)(const float* values, const BlockList& list, std::int64_t stored, std::int64_t begin, std::int64_t count,
                  std::int64_t block, float* out);
  bool (*collect_bfloat16)(const std::uint16_t* values, const BlockList& list, std::int64_t stored, std::int64_t begin,
                           std::int64_t count, std::int64_t block, float* out);

  const ConvKernels* convolution;
};

const Kernels& KernelsFor(isa::Level level);

}  // namespace keras_lth::sparse

#endif  // KERAS_LTH_CC_SPARSE_KERNELS_H_

// How a product is cut up: tiles of the batch, parts of the outputs.
#ifndef KERAS_LTH_CC_SPARSE_PLAN_H_
#define KERAS_LTH_CC_SPARSE_PLAN_H_

#include <cstdint>
#include <vector>

#include "cc/sparse/kernels.h"
#include "cc/sparse/spmm.h"
#include "cc/sparse/structure.h"

namespace keras_lth::sparse {

// A product seen from its outputs: `list` has a group of `group` outputs for each of its groups of `depth` inputs.
struct Side {
  BlockList list;
  std::int64_t groups, group, outputs;
  std::int64_t input_groups, depth, inputs;
  std::int64_t weight_in, weight_out;

  std::int64_t PaddedInputs() const { return input_groups * depth; }
  std::int64_t Area() const { return group * depth; }
  std::int64_t Stored() const { return list.starts[groups]; }
  double Multiplications(std::int64_t m) const { return static_cast<double>(Stored() * Area()) * static_cast<double>(m); }
  bool Singles() const { return group == 1 && depth == 1; }
  // The entries of one group; the caller sets the inputs.
  Entries Of(std::int64_t g) const;
};

Side Forward(const Structure& structure);   // inputs are rows, outputs are columns
Side Backward(const Structure& structure);  // the other way round

// Throws std::invalid_argument unless the structure has one tap.
void ExpectOneTap(const Structure& structure);

// The batch in tiles of `full` samples, the last one as wide as it needs to be.
struct Tiles {
  std::int64_t m, full;

  std::int64_t Count() const { return (m + full - 1) / full; }
  std::int64_t Rows(std::int64_t tile) const { return tile + 1 < Count() ? full : m - tile * full; }
  std::int64_t Width(std::int64_t tile) const;
};

// At most `most` samples a tile, about as many in each.
Tiles CutBatch(std::int64_t m, std::int64_t most);

// Samples packed at a time for `features` features a sample: whole tiles, at least one.
std::int64_t Strip(const Tiles& tiles, std::int64_t features);

// Groups cut into at most `parts` parts of about the same number of blocks and outputs: bounds[p] ... bounds[p + 1].
std::vector<std::int64_t> CutGroups(const Side& side, std::int64_t parts);

// Feature-major copies of x[m, features], tile after tile, each of `padded` features: tasks for a phase. A feature's run
// is as wide as its tile, or `step` floats.
struct Packing {
  const Kernels& kernels;
  const float* x;
  std::int64_t features, padded;
  Tiles tiles;
  float* out;
  std::int64_t step = 0;

  std::int64_t Tasks() const;
  void operator()(std::int64_t task) const;
};

}  // namespace keras_lth::sparse

#endif  // KERAS_LTH_CC_SPARSE_PLAN_H_

// Single weights, blocks of 1 x 1, as row-major products and those of columns compute them.
#ifndef KERAS_LTH_CC_SPARSE_SINGLES_H_
#define KERAS_LTH_CC_SPARSE_SINGLES_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "cc/sparse/kernels.h"
#include "cc/sparse/phases.h"
#include "cc/sparse/plan.h"
#include "cc/sparse/scratch.h"
#include "cc/sparse/spmm.h"

namespace keras_lth::sparse {

// Weights as floats in the order of a side's list: as they lie, or collected once for all tiles, by tasks that must run
// before they are read.
class Listed {
 public:
  Listed(const Kernels& kernels, const Side& side, const Values& values);

  std::int64_t Tasks() const;
  void operator()(std::int64_t task) const;
  const float* data() const { return data_; }

 private:
  const Kernels& kernels_;
  const Side& side_;
  Values values_;
  std::optional<Scratch> scratch_;
  const float* data_;
};

// The gradient of the weights from columns of x and dy, and of the bias unless `dbias` is null.
class Sampling {
 public:
  Sampling(const Kernels& kernels, const Side& side, unsigned threads, float* dvalues, float* dbias);

  // Phases for these tiles; `add` to what earlier ones gave. This and the arrays must live while the phases run.
  void Add(const Tiles& tiles, const float* x, const float* dy, bool add, std::vector<Phase>* phases);

 private:
  // Inputs that are met at a time: some of one tile, or all of several.
  struct Panel {
    Tiles tiles;
    const float *x, *dy;
    std::int64_t begin, end;
    std::int32_t limit;
    bool first, add;
  };
  void Run(const Panel& panel, std::int64_t part);

  const Kernels& kernels_;
  const Side& side_;
  std::vector<std::int64_t> bounds_;
  std::vector<std::int64_t> next_;  // of each output, the first entry left
  float *dvalues_, *dbias_;
};

}  // namespace keras_lth::sparse

#endif  // KERAS_LTH_CC_SPARSE_SINGLES_H_

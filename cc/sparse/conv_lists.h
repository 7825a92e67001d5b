// The stored blocks as the inner loops of the convolution read them: for each group of outputs the inputs by offset,
// each with its weights, in the order of the structure, sorted by chunks of channels whose pixels the first-level cache
// holds.
#ifndef KERAS_LTH_CC_SPARSE_CONV_LISTS_H_
#define KERAS_LTH_CC_SPARSE_CONV_LISTS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "cc/sparse/conv_kernels.h"
#include "cc/sparse/conv_plan.h"

namespace keras_lth::sparse {

struct Lists {
  std::int64_t groups = 0, width = 0, chunks = 0;
  std::unique_ptr<std::int64_t[]> starts;  // [chunks * groups + 1]
  std::unique_ptr<std::uint32_t[]> offsets;
  const float* weights = nullptr;  // `owned`, or the values where they are in the same order
  std::unique_ptr<float[]> owned;

  std::int64_t Entries() const { return starts[chunks * groups]; }
  Panel At(std::int64_t chunk, std::int64_t begin, std::int64_t end) const {
    return {end - begin, width, starts.get() + chunk * groups + begin, offsets.get(), weights};
  }
};

// By groups of outputs. `values` may be null; otherwise they must outlive the lists.
Lists ForwardLists(const Structure& structure, const Values* values, const Plan& plan, const ConvShape& shape,
                   unsigned threads);

// By groups of inputs: [phase_y * phases_x + phase_x], the taps that meet the phase.
std::vector<Lists> TransposedLists(const Structure& structure, const Values& values, const Plan& plan,
                                   const ConvShape& shape, unsigned threads);

// dvalues = the sums [pieces, entries, width] of ForwardLists, added up piece after piece.
void Gather(const Structure& structure, const Plan& plan, const ConvShape& shape, const Lists& lists, const float* sums,
            std::int64_t pieces, float* dvalues, unsigned threads);

}  // namespace keras_lth::sparse

#endif  // KERAS_LTH_CC_SPARSE_CONV_LISTS_H_

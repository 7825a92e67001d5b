#include "cc/sparse/singles.h"

#include <algorithm>
#include <cstddef>

namespace keras_lth::sparse {

namespace {

constexpr std::int64_t kCollected = std::int64_t{1} << 15;  // weights collected by a task
// Inputs that are met at a time: they stay in the second-level cache.
constexpr std::int64_t kPanelFloats = std::int64_t{1} << 18;
constexpr std::int64_t kPartWeights = std::int64_t{1} << 14;
constexpr std::int64_t kParts = 32;  // a thread

}  // namespace

Listed::Listed(const Kernels& kernels, const Side& side, const Values& values)
    : kernels_(kernels), side_(side), values_(values), data_(static_cast<const float*>(values.data)) {
  if (side.list.places == nullptr && values.storage == Storage::kFloat32) return;
  scratch_.emplace(side.Stored());
  data_ = scratch_->data();
}

std::int64_t Listed::Tasks() const { return scratch_ ? (side_.Stored() + kCollected - 1) / kCollected : 0; }

void Listed::operator()(std::int64_t task) const {
  const std::int64_t begin = task * kCollected, count = std::min(kCollected, side_.Stored() - begin);
  float* const out = scratch_->data() + begin;
  const auto collect = [&](auto kernel, const auto* values) {
    return kernel(values, side_.list, side_.Stored(), begin, count, 1, out);
  };
  const bool inside = values_.storage == Storage::kFloat32
                          ? collect(kernels_.collect, static_cast<const float*>(values_.data))
                          : collect(kernels_.collect_bfloat16, static_cast<const std::uint16_t*>(values_.data));
  if (!inside) RefusePlaces();
}

Sampling::Sampling(const Kernels& kernels, const Side& side, unsigned threads, float* dvalues, float* dbias)
    : kernels_(kernels),
      side_(side),
      bounds_(CutGroups(side, std::max(side.Stored() / kPartWeights, kParts * std::int64_t{threads}))),
      next_(static_cast<std::size_t>(side.outputs)),
      dvalues_(dvalues),
      dbias_(dbias) {}

void Sampling::Add(const Tiles& tiles, const float* x, const float* dy, bool add, std::vector<Phase>* phases) {
  const std::int64_t floats = std::max<std::int64_t>(1, side_.inputs * tiles.full);
  const std::int64_t panels = (floats + kPanelFloats - 1) / kPanelFloats;
  const std::int64_t together = std::max<std::int64_t>(1, kPanelFloats / floats);
  for (std::int64_t t = 0; t < tiles.Count(); t += together) {
    for (std::int64_t p = 0; p < panels; ++p) {
      const auto limit = static_cast<std::int32_t>(side_.inputs / panels * (p + 1) + side_.inputs % panels);
      const Panel panel{tiles, x, dy, t, std::min(t + together, tiles.Count()), limit, p == 0, add || t > 0};
      phases->push_back({static_cast<std::int64_t>(bounds_.size()) - 1,
                         [this, panel](std::int64_t part) { Run(panel, part); }});
    }
  }
}

void Sampling::Run(const Panel& panel, std::int64_t part) {
  const auto p = static_cast<std::size_t>(part);
  const std::int64_t begin = bounds_[p], outputs = bounds_[p + 1] - begin, step = panel.tiles.full;
  const std::int64_t* starts = side_.list.starts + begin;
  for (std::int64_t t = panel.begin; t < panel.end; ++t) {
    const float* const grads = panel.dy + t * step * side_.outputs + begin * step;
    const bool add = panel.add || t > panel.begin;
    if (panel.first) {
      std::copy_n(starts, outputs, next_.data() + begin);
      if (dbias_ != nullptr) kernels_.sum_rows(grads, step, outputs, panel.tiles.Width(t), add, dbias_ + begin);
    }
    kernels_.sample_singles({starts, side_.list.others, panel.x + t * step * side_.inputs, step}, grads, step, outputs,
                            panel.tiles.Width(t), panel.limit, next_.data() + begin, add, dvalues_);
  }
}

}  // namespace keras_lth::sparse

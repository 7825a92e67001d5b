// The gradient of the stored weights.
#include <algorithm>
#include <cstddef>
#include <vector>

#include "cc/sparse/kernels.h"
#include "cc/sparse/phases.h"
#include "cc/sparse/plan.h"
#include "cc/sparse/scratch.h"
#include "cc/sparse/spmm.h"

namespace keras_lth::sparse {

namespace {

constexpr std::int64_t kTile = 128;
constexpr std::int64_t kPartWeights = std::int64_t{1} << 14;
constexpr std::int64_t kParts = 4, kSinglesParts = 32;         // a thread
constexpr std::int64_t kPanelFloats = std::int64_t{1} << 18;  // inputs that single weights meet at a time
constexpr std::int64_t kPackedRows = 16;  // samples copied into panels by a task
constexpr std::int64_t kLine = 16;        // floats
constexpr std::int64_t kFewMeetings = 40;  // fewer of them do not pay for a copy

std::int64_t RoundUp(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit * unit; }

// Panels [m, step] of `group` features of x[m, features], zeros behind them.
struct Panels {
  const float* x;
  std::int64_t m, features, group, step;

  // Copies the samples from `begin` to `end` of the panel of group g.
  void Copy(std::int64_t g, std::int64_t begin, std::int64_t end, float* panel) const {
    const std::int64_t filled = std::min(group, features - g * group);
    for (std::int64_t t = begin; t < end; ++t) {
      const float* from = x + t * features + g * group;
      float* to = panel + t * step;
      std::fill(std::copy(from, from + filled, to), to + step, 0.0F);
    }
  }
};

// Weights lie in the order of Forward's list, so a part's are one stretch.
struct Sampling {
  const Kernels& kernels;
  Side side;
  std::vector<std::int64_t> bounds;
  float* dvalues;

  std::int64_t Parts() const { return static_cast<std::int64_t>(bounds.size()) - 1; }
  std::int64_t Begin(std::int64_t part) const { return bounds[static_cast<std::size_t>(part)]; }
  std::int64_t End(std::int64_t part) const { return bounds[static_cast<std::size_t>(part) + 1]; }
};

void SampleBlocks(const Sampling& sampling, std::int64_t part, const float* in, const float* grads,
                  std::int64_t width, bool add) {
  const Side& side = sampling.side;
  for (std::int64_t g = sampling.Begin(part); g < sampling.End(part); ++g) {
    Entries entries = side.Of(g);
    entries.in = in;
    entries.in_step = width;
    entries.scale = side.depth * width;
    sampling.kernels.sample(entries, grads + g * side.group * width, side.group, width, add,
                            sampling.dvalues + side.list.starts[g] * side.Area());
  }
}

// Feature-major tiles for single weights, whose inputs are met anywhere: in panels that fit the second-level cache.
void RunSingles(const Sampling& sampling, const float* x, const float* dy, std::int64_t m, unsigned threads) {
  const Side& side = sampling.side;
  const Tiles whole = CutBatch(m, kTile);
  const std::int64_t strip = std::min(Strip(whole, side.inputs + side.outputs), whole.Count() * whole.full);
  const Scratch ins(strip * side.inputs), grads(strip * side.outputs);
  std::vector<std::int64_t> next(static_cast<std::size_t>(side.outputs));  // of each output, the first entry left
  std::vector<Phase> phases;
  for (std::int64_t done = 0; done < m; done += strip) {
    const Tiles tiles{std::min(strip, m - done), whole.full};
    const Packing xs{sampling.kernels, x + done * side.inputs, side.inputs, side.inputs, tiles, ins.data()};
    const Packing dys{sampling.kernels, dy + done * side.outputs, side.outputs, side.outputs, tiles, grads.data()};
    phases.push_back({xs.Tasks(), xs});
    phases.push_back({dys.Tasks(), dys});
    for (std::int64_t t = 0; t < tiles.Count(); ++t) {
      const std::int64_t at = t * tiles.full, width = tiles.Width(t);
      const std::int64_t panels = std::max<std::int64_t>(1, (side.inputs * width + kPanelFloats - 1) / kPanelFloats);
      for (std::int64_t panel = 0; panel < panels; ++panel) {
        const auto limit = static_cast<std::int32_t>(side.inputs / panels * (panel + 1) + side.inputs % panels);
        const bool add = done + at > 0;
        phases.push_back({sampling.Parts(), [&, at, width, panel, limit, add](std::int64_t part) {
                            const std::int64_t begin = sampling.Begin(part), outputs = sampling.End(part) - begin;
                            const std::int64_t* starts = side.list.starts + begin;
                            if (panel == 0) std::copy_n(starts, outputs, next.data() + begin);
                            sampling.kernels.sample_singles(
                                {starts, side.list.others, ins.data() + at * side.inputs, width},
                                grads.data() + at * side.outputs + begin * width, outputs, width, limit,
                                next.data() + begin, add, sampling.dvalues);
                          }});
      }
    }
  }
  RunPhases(threads, phases);
}

// Feature-major tiles: narrow blocks.
void RunTiles(const Sampling& sampling, const float* x, const float* dy, std::int64_t m, unsigned threads) {
  const Side& side = sampling.side;
  const Tiles whole = CutBatch(m, kTile);
  const std::int64_t outputs = side.groups * side.group, inputs = side.PaddedInputs();
  const std::int64_t strip = std::min(Strip(whole, inputs + outputs), whole.Count() * whole.full);
  const Scratch ins(strip * inputs), grads(strip * outputs);
  std::vector<Phase> phases;
  for (std::int64_t done = 0; done < m; done += strip) {
    const Tiles tiles{std::min(strip, m - done), whole.full};
    const Packing xs{sampling.kernels, x + done * side.inputs, side.inputs, inputs, tiles, ins.data()};
    const Packing dys{sampling.kernels, dy + done * side.outputs, side.outputs, outputs, tiles, grads.data()};
    phases.push_back({xs.Tasks(), xs});
    phases.push_back({dys.Tasks(), dys});
    phases.push_back({sampling.Parts(), [&, tiles, done](std::int64_t part) {
                        for (std::int64_t t = 0; t < tiles.Count(); ++t) {
                          const std::int64_t at = t * tiles.full;
                          SampleBlocks(sampling, part, ins.data() + at * inputs, grads.data() + at * outputs,
                                       tiles.Width(t), done + at > 0);
                        }
                      }});
  }
  RunPhases(threads, phases);
}

// Sample-major panels: blocks with whole vectors of outputs. A panel of gradients is met by a group's blocks one after
// the other: whoever takes the group copies it. Inputs are met by many groups, in panels that all share; where few do, and
// a block's inputs are whole lines of the cache, they are met where they lie.
void RunPanels(const Sampling& sampling, const float* x, const float* dy, std::int64_t m, unsigned threads) {
  const Side& side = sampling.side;
  const std::int64_t step = RoundUp(side.group, 4);
  const Tiles whole = CutBatch(m, 4 * kTile);
  const bool in_place = side.depth % kLine == 0 && side.inputs % side.depth == 0 &&
                        side.Stored() < kFewMeetings * side.input_groups;
  const Scratch ins(in_place ? 0 : std::min(m, whole.full) * side.PaddedInputs());
  std::vector<Phase> phases;
  for (std::int64_t done = 0; done < m; done += whole.full) {
    const std::int64_t samples = std::min(whole.full, m - done);
    const Panels xs{x + done * side.inputs, samples, side.inputs, side.depth, side.depth};
    const Panels dys{dy + done * side.outputs, samples, side.outputs, side.group, step};
    if (!in_place) {
      phases.push_back({(samples + kPackedRows - 1) / kPackedRows, [&, xs](std::int64_t task) {
                          const std::int64_t begin = task * kPackedRows, end = std::min(xs.m, begin + kPackedRows);
                          for (std::int64_t g = 0; g < side.input_groups; ++g) {
                            xs.Copy(g, begin, end, ins.data() + g * xs.m * xs.step);
                          }
                        }});
    }
    phases.push_back({sampling.Parts(), [&, xs, dys](std::int64_t part) {
                        const Scratch grads(dys.m * step);
                        for (std::int64_t g = sampling.Begin(part); g < sampling.End(part); ++g) {
                          dys.Copy(g, 0, dys.m, grads.data());
                          Entries entries = side.Of(g);
                          entries.in = in_place ? xs.x : ins.data();
                          entries.in_step = in_place ? side.inputs : side.depth;
                          entries.scale = in_place ? side.depth : dys.m * side.depth;
                          sampling.kernels.sample_panels(entries, grads.data(), step, side.group, dys.m, xs.x != x,
                                                         sampling.dvalues + side.list.starts[g] * side.Area());
                        }
                      }});
  }
  RunPhases(threads, phases);
}

// What fills up the last blocks has met zeros only, but 0 times infinity is not 0.
void ClearPadding(const Structure& s, float* dvalues) {
  const std::int64_t rows = s.rows % s.block_rows, cols = s.cols % s.block_cols;
  const std::int64_t area = std::int64_t{s.block_rows} * s.block_cols, groups = s.ColGroups();
  for (std::int64_t g = 0; g < groups && rows != 0; ++g) {
    // Blocks ascend, so only the last one of a column can be in the last row of blocks.
    const std::int64_t id = s.by_col.starts[g + 1] - 1;
    if (id < s.by_col.starts[g] || s.by_col.others[id] != s.RowGroups() - 1) continue;
    std::fill(dvalues + id * area + rows * s.block_cols, dvalues + (id + 1) * area, 0.0F);
  }
  if (cols == 0) return;
  for (float* row = dvalues + s.by_col.starts[groups - 1] * area; row < dvalues + s.Stored() * area; row += s.block_cols) {
    std::fill(row + cols, row + s.block_cols, 0.0F);
  }
}

}  // namespace

void SampleProduct(const Structure& structure, const float* x, const float* dy, std::int64_t m, float* dvalues,
                   const Run& run) {
  ExpectOneTap(structure);
  const Side side = Forward(structure);
  float* const behind = dvalues + (m == 0 ? 0 : side.Stored()) * side.Area();
  std::fill(behind, dvalues + structure.room * side.Area(), 0.0F);
  if (m == 0 || side.Stored() == 0) return;
  const unsigned threads = ThreadsFor(run, side.Multiplications(m));
  const std::int64_t parts = std::max(side.Stored() * side.Area() / kPartWeights,
                                      (side.Singles() ? kSinglesParts : kParts) * std::int64_t{threads});
  const Sampling sampling{KernelsFor(run.level), side, CutGroups(side, parts), dvalues};
  if (side.Singles()) {
    RunSingles(sampling, x, dy, m, threads);
  } else if (side.group > 4) {
    RunPanels(sampling, x, dy, m, threads);
  } else {
    RunTiles(sampling, x, dy, m, threads);
  }
  ClearPadding(structure, dvalues);
}

}  // namespace keras_lth::sparse

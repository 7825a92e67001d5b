// The gradient of the stored weights.
#include <algorithm>
#include <cstddef>
#include <vector>

#include "cc/sparse/columns.h"
#include "cc/sparse/kernels.h"
#include "cc/sparse/phases.h"
#include "cc/sparse/plan.h"
#include "cc/sparse/scratch.h"
#include "cc/sparse/singles.h"
#include "cc/sparse/spmm.h"

namespace keras_lth::sparse {

namespace {

constexpr std::int64_t kTile = 128;
constexpr std::int64_t kPartWeights = std::int64_t{1} << 14;
constexpr std::int64_t kParts = 4;        // a thread
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
struct Blocks {
  const Kernels& kernels;
  Side side;
  std::vector<std::int64_t> bounds;
  float* dvalues;

  std::int64_t Parts() const { return static_cast<std::int64_t>(bounds.size()) - 1; }
  std::int64_t Begin(std::int64_t part) const { return bounds[static_cast<std::size_t>(part)]; }
  std::int64_t End(std::int64_t part) const { return bounds[static_cast<std::size_t>(part) + 1]; }
};

void SampleBlocks(const Blocks& blocks, std::int64_t part, const float* in, const float* grads,
                  std::int64_t width, bool add) {
  const Side& side = blocks.side;
  for (std::int64_t g = blocks.Begin(part); g < blocks.End(part); ++g) {
    Entries entries = side.Of(g);
    entries.in = in;
    entries.in_step = width;
    entries.scale = side.depth * width;
    blocks.kernels.sample(entries, grads + g * side.group * width, side.group, width, add,
                            blocks.dvalues + side.list.starts[g] * side.Area());
  }
}

// Single weights: columns of both sides.
void RunSingles(const Side& side, float* dvalues, const float* x, const float* dy, std::int64_t m, unsigned threads,
                const Kernels& kernels) {
  const Tiles whole = ColumnTiles(m);
  const std::int64_t strip = std::min(Strip(whole, side.inputs + side.outputs), whole.Count() * whole.full);
  const Scratch ins(strip * side.inputs), grads(strip * side.outputs);
  Sampling sampling(kernels, side, threads, dvalues, nullptr);
  std::vector<Phase> phases;
  for (std::int64_t done = 0; done < m; done += strip) {
    const Tiles tiles{std::min(strip, m - done), whole.full};
    const Packing xs{kernels, x + done * side.inputs, side.inputs, side.inputs, tiles, ins.data(), tiles.full};
    const Packing dys{kernels, dy + done * side.outputs, side.outputs, side.outputs, tiles, grads.data(), tiles.full};
    phases.push_back({xs.Tasks(), xs});
    phases.push_back({dys.Tasks(), dys});
    sampling.Add(tiles, ins.data(), grads.data(), done > 0, &phases);
  }
  RunPhases(threads, phases);
}

// Feature-major tiles: narrow blocks.
void RunTiles(const Blocks& blocks, const float* x, const float* dy, std::int64_t m, unsigned threads) {
  const Side& side = blocks.side;
  const Tiles whole = CutBatch(m, kTile);
  const std::int64_t outputs = side.groups * side.group, inputs = side.PaddedInputs();
  const std::int64_t strip = std::min(Strip(whole, inputs + outputs), whole.Count() * whole.full);
  const Scratch ins(strip * inputs), grads(strip * outputs);
  std::vector<Phase> phases;
  for (std::int64_t done = 0; done < m; done += strip) {
    const Tiles tiles{std::min(strip, m - done), whole.full};
    const Packing xs{blocks.kernels, x + done * side.inputs, side.inputs, inputs, tiles, ins.data()};
    const Packing dys{blocks.kernels, dy + done * side.outputs, side.outputs, outputs, tiles, grads.data()};
    phases.push_back({xs.Tasks(), xs});
    phases.push_back({dys.Tasks(), dys});
    phases.push_back({blocks.Parts(), [&, tiles, done](std::int64_t part) {
                        for (std::int64_t t = 0; t < tiles.Count(); ++t) {
                          const std::int64_t at = t * tiles.full;
                          SampleBlocks(blocks, part, ins.data() + at * inputs, grads.data() + at * outputs,
                                       tiles.Width(t), done + at > 0);
                        }
                      }});
  }
  RunPhases(threads, phases);
}

// Sample-major panels: blocks with whole vectors of outputs. A panel of gradients is met by a group's blocks one after
// the other: whoever takes the group copies it. Inputs are met by many groups, in panels that all share; where few do, and
// a block's inputs are whole lines of the cache, they are met where they lie.
void RunPanels(const Blocks& blocks, const float* x, const float* dy, std::int64_t m, unsigned threads) {
  const Side& side = blocks.side;
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
    phases.push_back({blocks.Parts(), [&, xs, dys](std::int64_t part) {
                        const Scratch grads(dys.m * step);
                        for (std::int64_t g = blocks.Begin(part); g < blocks.End(part); ++g) {
                          dys.Copy(g, 0, dys.m, grads.data());
                          Entries entries = side.Of(g);
                          entries.in = in_place ? xs.x : ins.data();
                          entries.in_step = in_place ? side.inputs : side.depth;
                          entries.scale = in_place ? side.depth : dys.m * side.depth;
                          blocks.kernels.sample_panels(entries, grads.data(), step, side.group, dys.m, xs.x != x,
                                                         blocks.dvalues + side.list.starts[g] * side.Area());
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
  const Kernels& kernels = KernelsFor(run.level);
  if (side.Singles()) return RunSingles(side, dvalues, x, dy, m, threads, kernels);
  const std::int64_t parts = std::max(side.Stored() * side.Area() / kPartWeights, kParts * std::int64_t{threads});
  const Blocks blocks{kernels, side, CutGroups(side, parts), dvalues};
  (side.group > 4 ? RunPanels : RunTiles)(blocks, x, dy, m, threads);
  ClearPadding(structure, dvalues);
}

}  // namespace keras_lth::sparse

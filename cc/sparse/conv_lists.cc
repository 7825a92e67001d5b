#include "cc/sparse/conv_lists.h"

#include <algorithm>
#include <cstring>

#include "cc/threads/for_each.h"

namespace keras_lth::sparse {

namespace {

// A group of inputs, as a block list numbers them.
struct Input {
  std::uint32_t offset;
  std::int32_t chunk;
  std::int64_t count;  // less than a block's in the last group
};

// The lists of a block list that hold the blocks of group g: first + g; their inputs are shifted by `offset`.
struct Part {
  std::int64_t first;
  std::uint32_t offset;
};

// One direction through the structure: from groups of `width` outputs to groups of `depth` inputs.
struct Side {
  const BlockList* blocks;
  std::int64_t groups, width;
  std::int64_t channels, depth;          // inputs
  std::int64_t input_step, output_step;  // within a block's values
  std::uint32_t plane;                   // floats between channels
  std::int64_t chunks = 1;
  std::vector<Input> inputs;
  std::vector<Part> parts;
};

// Channels of a chunk: what a first-level cache holds of a run, but enough entries in a list to make up for the run of
// sums that is loaded and stored; a whole number of blocks. One chunk where too few positions pay for the sorting.
std::int64_t ChunkOf(const Structure& structure, const Side& side, const Plan& plan) {
  constexpr double kBytes = 40 * 1024, kEntries = 16, kPositions = 32;
  if (static_cast<double>(plan.groups * plan.y.tile * plan.x.tile) < kPositions) return side.channels;
  const double run = static_cast<double>(std::min<std::int64_t>(plan.x.tile, kMostVectors) + plan.x.reach - 1);
  const double bytes = static_cast<double>(plan.y.reach * plan.lanes) * sizeof(float) * run;
  const double entries = static_cast<double>(structure.Stored() * side.depth) /
                         static_cast<double>(plan.y.phases * plan.x.phases * side.groups * side.channels);
  const double channels = std::max(kBytes / bytes, kEntries / static_cast<double>(side.width) / entries);
  const auto chunks = static_cast<std::int64_t>(std::max(1.0, static_cast<double>(side.channels) / channels + 0.5));
  const std::int64_t blocks = (side.channels + side.depth - 1) / side.depth;
  return (blocks + chunks - 1) / chunks * side.depth;
}

// The inputs of `taps` taps side by side, where a block list has them so.
void SetInputs(const Structure& structure, const Plan& plan, const std::vector<std::int64_t>& taps, Side* side) {
  if (structure.Stored() == 0) return;
  const std::int64_t chunk = ChunkOf(structure, *side, plan);
  for (const std::int64_t tap : taps) {
    for (std::int64_t c = 0; c < side->channels; c += side->depth) {
      side->inputs.push_back({static_cast<std::uint32_t>(c * plan.plane * plan.lanes + tap),
                              static_cast<std::int32_t>(c / chunk), std::min(side->depth, side->channels - c)});
    }
  }
  side->chunks = (side->channels + chunk - 1) / chunk;
}

Side ForwardSide(const Structure& s, const Plan& plan, const ConvShape& shape) {
  Side side{&s.by_col, s.ColGroups(), s.block_cols, s.rows, s.block_rows, s.block_cols, 1,
            static_cast<std::uint32_t>(plan.plane * plan.lanes), 1, {}, {}};
  SetInputs(s, plan, TapOffsets(plan, shape), &side);
  side.parts.push_back({0, 0});
  return side;
}

Side TransposedSide(const Structure& s, const Plan& plan, const ConvShape& shape, std::int64_t phase_y,
                    std::int64_t phase_x) {
  Side side{&s.by_row, s.RowGroups(), s.block_rows, s.cols, s.block_cols, 1, s.block_cols,
            static_cast<std::uint32_t>(plan.plane * plan.lanes), 1, {}, {}};
  SetInputs(s, plan, {0}, &side);
  const std::vector<std::int64_t> taps = TapOffsets(plan, shape);
  for (std::int64_t dy = phase_y; dy < shape.kernel_height; dy += plan.y.phases) {
    for (std::int64_t dx = phase_x; dx < shape.kernel_width; dx += plan.x.phases) {
      const std::int64_t tap = dy * shape.kernel_width + dx;
      side.parts.push_back({tap * side.groups, static_cast<std::uint32_t>(taps[static_cast<std::size_t>(tap)])});
    }
  }
  return side;
}

// Calls visit(input, offset, id) for the blocks of a group of outputs.
template <class Visit>
void Blocks(const Side& side, std::int64_t group, Visit visit) {
  const BlockList& list = *side.blocks;
  for (const Part& part : side.parts) {
    const std::int64_t end = list.starts[part.first + group + 1];
    for (std::int64_t i = list.starts[part.first + group]; i < end; ++i) {
      const Input& input = side.inputs[static_cast<std::size_t>(list.others[i])];
      visit(input, input.offset + part.offset, list.Id(i));
    }
  }
}

// Calls body(begin, end) for ranges of the groups.
template <class Body>
void ForRanges(std::int64_t groups, unsigned threads, Body body) {
  const auto ranges = std::min<std::int64_t>(groups, threads == 1 ? 1 : 4 * std::int64_t{threads});
  threads::ForEach(threads, static_cast<std::size_t>(ranges), [&](unsigned, std::size_t range) {
    const auto r = static_cast<std::int64_t>(range);
    body(groups * r / ranges, groups * (r + 1) / ranges);
  });
}

// Calls body(group, next) for every group; next[chunk] is the group's first entry there.
template <class Body>
void ForGroups(const Lists& lists, unsigned threads, Body body) {
  ForRanges(lists.groups, threads, [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::int64_t> next(static_cast<std::size_t>(lists.chunks));
    for (std::int64_t g = begin; g < end; ++g) {
      for (std::int64_t c = 0; c < lists.chunks; ++c) {
        next[static_cast<std::size_t>(c)] = lists.starts[c * lists.groups + g];
      }
      body(g, next.data());
    }
  });
}

float Widen(std::uint16_t half) {
  const std::uint32_t bits = std::uint32_t{half} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// Offsets, and the weights as at(place in the values) gives them.
template <class At>
void Fill(const Side& side, unsigned threads, bool weights, At at, Lists* lists) {
  const std::int64_t block = side.depth * side.width;
  ForGroups(*lists, threads, [&](std::int64_t g, std::int64_t* next) {
    std::uint32_t* const offsets = lists->offsets.get();
    Blocks(side, g, [&](const Input& input, std::uint32_t offset, std::int64_t id) {
      for (std::int64_t i = 0; i < input.count; ++i) {
        const std::int64_t e = next[input.chunk]++;
        offsets[e] = offset + static_cast<std::uint32_t>(i) * side.plane;
        if (!weights) continue;
        for (std::int64_t j = 0; j < side.width; ++j) {
          lists->owned[e * side.width + j] = at(id * block + i * side.input_step + j * side.output_step);
        }
      }
    });
  });
}

Lists Build(const Side& side, const Values* values, unsigned threads) {
  Lists lists;
  lists.groups = side.groups;
  lists.width = side.width;
  lists.chunks = side.chunks;
  const std::int64_t cells = lists.chunks * lists.groups;
  lists.starts.reset(new std::int64_t[static_cast<std::size_t>(cells) + 1]());
  ForRanges(side.groups, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t g = begin; g < end; ++g) {
      std::int64_t* const counts = lists.starts.get() + g + 1;
      Blocks(side, g, [&](const Input& input, std::uint32_t, std::int64_t) {
        counts[input.chunk * side.groups] += input.count;
      });
    }
  });
  for (std::int64_t i = 0; i < cells; ++i) lists.starts[i + 1] += lists.starts[i];
  const std::int64_t entries = lists.Entries();
  lists.offsets.reset(new std::uint32_t[static_cast<std::size_t>(entries)]);
  const auto none = [](std::int64_t) { return 0.0F; };
  if (values == nullptr) {
    Fill(side, threads, false, none, &lists);
    return lists;
  }
  const bool single = values->storage == Storage::kFloat32;
  const auto* const floats = static_cast<const float*>(values->data);
  const auto* const halves = static_cast<const std::uint16_t*>(values->data);
  // The structure's own order, no rows that only fill up a block: the values are the lists' weights.
  if (single && side.chunks == 1 && side.blocks->places == nullptr && side.output_step == 1 &&
      side.channels % side.depth == 0) {
    lists.weights = floats;
    Fill(side, threads, false, none, &lists);
    return lists;
  }
  lists.owned.reset(new float[static_cast<std::size_t>(entries * side.width)]);
  lists.weights = lists.owned.get();
  if (single) {
    Fill(side, threads, true, [floats](std::int64_t i) { return floats[i]; }, &lists);
  } else {
    Fill(side, threads, true, [halves](std::int64_t i) { return Widen(halves[i]); }, &lists);
  }
  return lists;
}

}  // namespace

Lists ForwardLists(const Structure& structure, const Values* values, const Plan& plan, const ConvShape& shape,
                   unsigned threads) {
  return Build(ForwardSide(structure, plan, shape), values, threads);
}

std::vector<Lists> TransposedLists(const Structure& structure, const Values& values, const Plan& plan,
                                   const ConvShape& shape, unsigned threads) {
  std::vector<Lists> passes;
  for (std::int64_t py = 0; py < plan.y.phases; ++py) {
    for (std::int64_t px = 0; px < plan.x.phases; ++px) {
      passes.push_back(Build(TransposedSide(structure, plan, shape, py, px), &values, threads));
    }
  }
  return passes;
}

void Gather(const Structure& structure, const Plan& plan, const ConvShape& shape, const Lists& lists, const float* sums,
            std::int64_t pieces, float* dvalues, unsigned threads) {
  const Side side = ForwardSide(structure, plan, shape);
  const std::int64_t piece = lists.Entries() * lists.width, width = side.width;
  ForGroups(lists, threads, [&](std::int64_t g, std::int64_t* next) {
    const std::int64_t columns = std::min(width, structure.cols - g * width);
    Blocks(side, g, [&](const Input& input, std::uint32_t, std::int64_t id) {
      float* const block = dvalues + id * side.depth * width;
      for (std::int64_t i = 0; i < side.depth; ++i) {
        const float* from = sums + next[input.chunk] * width;
        for (std::int64_t j = 0; j < width; ++j) {
          float sum = 0;
          if (i < input.count && j < columns) {
            for (std::int64_t p = 0; p < pieces; ++p) sum += from[p * piece + j];
          }
          block[i * width + j] = sum;
        }
        next[input.chunk] += i < input.count ? 1 : 0;
      }
    });
  });
}

}  // namespace keras_lth::sparse

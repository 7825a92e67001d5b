#include "cc/sparse/conv.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "cc/sparse/conv_kernels.h"
#include "cc/sparse/conv_lists.h"
#include "cc/sparse/conv_plan.h"
#include "cc/sparse/kernels.h"
#include "cc/sparse/phases.h"
#include "cc/sparse/scratch.h"
#include "cc/threads/for_each.h"

namespace keras_lth::sparse {

namespace {

// A kernel of one pixel over few pixels is a small product, for which spmm.h has loops of its own.
bool IsSmallProduct(const ConvShape& flat, const Structure& structure) {
  return structure.taps == 1 && flat.batch == 1 && flat.height == 1 && flat.stride_width == 1 && flat.width <= 128;
}

unsigned ThreadsOf(const Run& run, const Work& work, const Plan& plan) {
  const double positions = static_cast<double>(plan.groups) * static_cast<double>(plan.y.tile * plan.x.tile * plan.lanes);
  return ThreadsFor(run, static_cast<double>(work.multiplies) * positions);
}

Work WorkOf(const Structure& s, std::int64_t width, std::int64_t channels_in, std::int64_t channels_out) {
  return {s.Stored() * s.block_rows * s.block_cols, width, channels_in, channels_out};
}

// Where pixels are, for reading.
class Reader {
 public:
  Reader(const float* pixels, std::int64_t height, std::int64_t width, std::int64_t channels)
      : pixels_(pixels),
        height_(height),
        width_(width),
        channels_(channels),
        zeros_(static_cast<std::size_t>(channels), 0.0F) {}

  // The row's number, or -1 outside the image and where there is none.
  std::int64_t Row(std::int64_t image, std::int64_t y) const {
    return image < 0 || y < 0 || y >= height_ ? -1 : image * height_ + y;
  }
  // The pixel, or zeros outside the image.
  const float* At(std::int64_t row, std::int64_t x) const {
    return row < 0 || x < 0 || x >= width_ ? zeros_.data() : pixels_ + (row * width_ + x) * channels_;
  }

 private:
  const float* pixels_;
  std::int64_t height_, width_, channels_;
  std::vector<float> zeros_;
};

void PackPatch(const Plan& plan, const ConvKernels& kernels, const Reader& reader, const Lane* lanes, float* patch) {
  for (std::int64_t py = 0; py < plan.y.Patch(); ++py) {
    if (py % plan.y.split >= plan.y.reach) continue;
    std::int64_t rows[kMostLanes], first[kMostLanes];
    for (std::int64_t i = 0; i < plan.lanes; ++i) {
      rows[i] = reader.Row(lanes[i].image, plan.y.src_first + lanes[i].y * plan.y.split + py);
      first[i] = plan.x.src_first + lanes[i].x * plan.x.split;
    }
    for (std::int64_t px = 0; px < plan.x.Patch(); ++px) {
      if (px % plan.x.split >= plan.x.reach) continue;
      const float* pixels[kMostLanes];
      for (std::int64_t i = 0; i < plan.lanes; ++i) pixels[i] = reader.At(rows[i], first[i] + px);
      kernels.pack(pixels, plan.channels_in, patch + plan.At(py, px) * plan.lanes, plan.plane * plan.lanes);
    }
  }
}

// A worker's memory: a patch, and `rest` vectors.
class Desk {
 public:
  Desk(const Plan& plan, std::int64_t rest, std::int64_t workers)
      : patch_((plan.scratch + 15) / 16 * 16),
        step_(patch_ + (rest * plan.lanes + 15) / 16 * 16),
        all_(step_ * workers) {}
  float* Patch(unsigned worker) const { return all_.data() + worker * step_; }
  float* Rest(unsigned worker) const { return Patch(worker) + patch_; }

 private:
  std::int64_t patch_, step_;
  Scratch all_;
};

// Parts of the groups of outputs, so that there are items for all threads.
std::int64_t Parts(std::int64_t items, std::int64_t groups, unsigned threads) {
  if (threads == 1 || items == 0) return 1;
  return std::clamp<std::int64_t>((2 * static_cast<std::int64_t>(threads) + items - 1) / items, 1, groups);
}

struct Output {
  float* pixels;
  std::int64_t channels;
  const float* bias;  // [groups * width], or null
  bool relu;
};

// One phase's outputs of a run of positions to where they belong.
void UnpackRun(const Plan& plan, const ConvKernels& kernels, const Lane* lanes, std::int64_t i, std::int64_t at,
               std::int64_t vectors, std::int64_t phase_y, std::int64_t phase_x, std::int64_t first,
               std::int64_t channels, const float* out, const Output& output) {
  float* pixels[kMostLanes];
  for (std::int64_t t = 0; t < vectors; ++t) {
    for (std::int64_t l = 0; l < plan.lanes; ++l) {
      const Lane& lane = lanes[l];
      const std::int64_t qy = lane.y + i, qx = lane.x + at + t;
      const std::int64_t y = plan.y.dst_first + qy * plan.y.phases + phase_y;
      const std::int64_t x = plan.x.dst_first + qx * plan.x.phases + phase_x;
      const bool own = lane.image >= 0 && qy >= lane.own_y && qx >= lane.own_x && y >= 0 && y < plan.y.dst_extent &&
                       x >= 0 && x < plan.x.dst_extent;
      pixels[l] = own ? output.pixels +
                            ((lane.image * plan.y.dst_extent + y) * plan.x.dst_extent + x) * output.channels + first
                      : nullptr;
    }
    kernels.unpack(out + t * plan.lanes, vectors * plan.lanes, channels, output.relu, pixels);
  }
}

void Product(const Plan& plan, const std::vector<Lists>& passes, const ConvKernels& kernels, const Reader& reader,
             const Output& output, unsigned threads) {
  const std::int64_t groups = passes[0].groups, width = passes[0].width;
  const std::int64_t parts = Parts(plan.groups, groups, threads);
  const std::int64_t items = plan.groups * parts;
  const Desk desk(plan, (groups + parts - 1) / parts * width * kMostVectors, std::min<std::int64_t>(threads, items));
  threads::ForEach(threads, static_cast<std::size_t>(items), [&](unsigned worker, std::size_t item) {
    const std::int64_t part = static_cast<std::int64_t>(item) % parts;
    const std::int64_t begin = groups * part / parts, end = groups * (part + 1) / parts;
    const std::int64_t first = begin * width, channels = std::min(output.channels, end * width) - first;
    float* const patch = desk.Patch(worker);
    float* const out = desk.Rest(worker);
    Lane lanes[kMostLanes];
    FindLanes(plan, static_cast<std::int64_t>(item) / parts, lanes);
    PackPatch(plan, kernels, reader, lanes, patch);
    const std::int64_t runs = Runs(plan.x.tile);
    for (std::int64_t i = 0; i < plan.y.tile; ++i) {
      for (std::int64_t run = 0; run < runs; ++run) {
        const std::int64_t at = plan.x.tile * run / runs, vectors = plan.x.tile * (run + 1) / runs - at;
        const float* in = patch + (i * plan.y.split * plan.row + at) * plan.lanes;
        for (std::size_t pass = 0; pass < passes.size(); ++pass) {
          const Lists& lists = passes[pass];
          for (std::int64_t chunk = 0; chunk < lists.chunks; ++chunk) {
            const float* bias = output.bias == nullptr ? nullptr : output.bias + first;
            kernels.multiply(lists.At(chunk, begin, end), in, vectors, chunk > 0, bias, out);
          }
          const auto phase = static_cast<std::int64_t>(pass);
          UnpackRun(plan, kernels, lanes, i, at, vectors, phase / plan.x.phases, phase % plan.x.phases, first, channels,
                    out, output);
        }
      }
    }
  });
}

// The gradient of `rows` runs of outputs: [channels, rows, vectors]; zeros for channels that fill up the last group.
void PackGradient(const Plan& plan, const ConvKernels& kernels, const Reader& reader, const Lane* lanes, std::int64_t i,
                  std::int64_t rows, std::int64_t at, std::int64_t vectors, std::int64_t first, std::int64_t channels,
                  std::int64_t filled, float* grads) {
  const std::int64_t step = rows * vectors * plan.lanes;
  const float* pixels[kMostLanes];
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t t = 0; t < vectors; ++t) {
      for (std::int64_t l = 0; l < plan.lanes; ++l) {
        const std::int64_t y = lanes[l].y + i + r, x = lanes[l].x + at + t;
        const bool own = y >= lanes[l].own_y && x >= lanes[l].own_x;
        pixels[l] = reader.At(own ? reader.Row(lanes[l].image, y) : -1, x) + first;
      }
      kernels.pack(pixels, channels, grads + (r * vectors + t) * plan.lanes, step);
    }
  }
  std::fill(grads + channels * step, grads + filled * step, 0.0F);
}

}  // namespace

void Check(const Structure& structure, const ConvShape& shape) {
  const auto at_least = [](const char* name, std::int64_t value, std::int64_t least) {
    if (value >= least) return;
    throw std::invalid_argument(std::string(name) + " is " + std::to_string(value) + ", less than " +
                                std::to_string(least));
  };
  at_least("batch", shape.batch, 0);
  at_least("height", shape.height, 0);
  at_least("width", shape.width, 0);
  at_least("the kernel's height", shape.kernel_height, 1);
  at_least("the kernel's width", shape.kernel_width, 1);
  at_least("the vertical stride", shape.stride_height, 1);
  at_least("the horizontal stride", shape.stride_width, 1);
  const std::int64_t taps = std::int64_t{shape.kernel_height} * shape.kernel_width;
  if (structure.taps != taps) {
    throw std::invalid_argument("the structure has " + std::to_string(structure.taps) + " taps, a kernel of " +
                                std::to_string(shape.kernel_height) + " x " + std::to_string(shape.kernel_width) +
                                " has " + std::to_string(taps));
  }
}

void Convolve(const Structure& structure, const Values& values, const ConvShape& original, const float* x,
              const Epilogue& epilogue, float* y, const Run& run) {
  const ConvShape shape = Flattened(original);
  if (IsSmallProduct(shape, structure)) return Multiply(structure, values, x, shape.width, epilogue, y, run);
  const ConvKernels& kernels = *KernelsFor(run.level).convolution;
  const Work work = WorkOf(structure, structure.block_cols, structure.rows, structure.cols);
  const Plan plan = PlanForward(shape, work, kernels.lanes);
  if (plan.groups == 0 || structure.cols == 0) return;
  const unsigned threads = ThreadsOf(run, work, plan);
  std::vector<Lists> passes;
  passes.push_back(ForwardLists(structure, &values, plan, shape, threads));
  std::vector<float> bias;
  if (epilogue.bias != nullptr) {
    bias.assign(epilogue.bias, epilogue.bias + structure.cols);
    bias.resize(static_cast<std::size_t>(structure.ColGroups() * structure.block_cols), 0.0F);
  }
  Product(plan, passes, kernels, Reader(x, shape.height, shape.width, structure.rows),
          {y, structure.cols, bias.empty() ? nullptr : bias.data(), epilogue.relu}, threads);
}

void ConvolveTransposed(const Structure& structure, const Values& values, const ConvShape& original, const float* dy,
                        float* dx, const Run& run) {
  const ConvShape shape = Flattened(original);
  if (IsSmallProduct(shape, structure)) return MultiplyTransposed(structure, values, dy, shape.width, dx, run);
  const ConvKernels& kernels = *KernelsFor(run.level).convolution;
  const Work work = WorkOf(structure, structure.block_rows, structure.cols, structure.rows);
  const Plan plan = PlanTransposed(shape, work, kernels.lanes);
  if (plan.groups == 0 || structure.rows == 0) return;
  const unsigned threads = ThreadsOf(run, work, plan);
  Product(plan, TransposedLists(structure, values, plan, shape, threads), kernels,
          Reader(dy, shape.OutHeight(), shape.OutWidth(), structure.cols), {dx, structure.rows, nullptr, false},
          threads);
}

void SampleConvolution(const Structure& structure, const ConvShape& original, const float* x, const float* dy,
                       float* dvalues, const Run& run) {
  const ConvShape shape = Flattened(original);
  if (IsSmallProduct(shape, structure)) return SampleProduct(structure, x, dy, shape.width, dvalues, run);
  const ConvKernels& kernels = *KernelsFor(run.level).convolution;
  const Work work = WorkOf(structure, structure.block_cols, structure.rows, structure.cols);
  const Plan plan = PlanForward(shape, work, kernels.lanes);
  const std::int64_t area = std::int64_t{structure.block_rows} * structure.block_cols;
  std::fill(dvalues + (plan.groups == 0 ? 0 : work.multiplies), dvalues + structure.room * area, 0.0F);
  if (structure.Stored() == 0 || plan.groups == 0) return;
  const unsigned threads = ThreadsOf(run, work, plan);
  const Lists lists = ForwardLists(structure, nullptr, plan, shape, threads);
  const std::int64_t groups = lists.groups, width = lists.width, size = lists.Entries() * width;
  // A number that does not depend on the threads: the pieces' sums are added in order.
  constexpr std::int64_t kPieces = 8, kFloats = std::int64_t{1} << 23;
  const std::int64_t pieces =
      std::min(plan.groups, std::clamp<std::int64_t>(kFloats / std::max<std::int64_t>(size, 1), 1, kPieces));
  const std::int64_t parts = Parts(pieces, groups, threads), items = pieces * parts;
  const Scratch sums(pieces * size);
  const Reader inputs(x, shape.height, shape.width, structure.rows);
  const Reader gradients(dy, shape.OutHeight(), shape.OutWidth(), structure.cols);
  const Desk desk(plan, (groups + parts - 1) / parts * width * kernels.vectors, std::min<std::int64_t>(threads, items));
  threads::ForEach(threads, static_cast<std::size_t>(items), [&](unsigned worker, std::size_t item) {
    const std::int64_t piece = static_cast<std::int64_t>(item) / parts, part = static_cast<std::int64_t>(item) % parts;
    const std::int64_t begin = groups * part / parts, end = groups * (part + 1) / parts;
    const std::int64_t first = begin * width, channels = std::min(structure.cols, end * width) - first;
    float* const patch = desk.Patch(worker);
    float* const grad = desk.Rest(worker);
    const std::int64_t runs = Runs(plan.x.tile);
    const auto sums_of = [&](std::int64_t chunk, std::int64_t group) {
      return sums.data() + piece * size + lists.starts[chunk * groups + group] * width;
    };
    for (std::int64_t chunk = 0; chunk < lists.chunks; ++chunk) {
      std::fill(sums_of(chunk, begin), sums_of(chunk, end), 0.0F);
    }
    Lane lanes[kMostLanes];
    for (std::int64_t g = plan.groups * piece / pieces; g < plan.groups * (piece + 1) / pieces; ++g) {
      FindLanes(plan, g, lanes);
      PackPatch(plan, kernels, inputs, lanes, patch);
      for (std::int64_t run_index = 0; run_index < runs; ++run_index) {
        const std::int64_t at = plan.x.tile * run_index / runs;
        const std::int64_t vectors = plan.x.tile * (run_index + 1) / runs - at;
        for (std::int64_t i = 0, rows = 4; i < plan.y.tile; i += rows) {
          while (rows > 1 && (rows > plan.y.tile - i || rows * vectors > kernels.vectors)) rows /= 2;
          PackGradient(plan, kernels, gradients, lanes, i, rows, at, vectors, first, channels, (end - begin) * width,
                       grad);
          const float* in = patch + (i * plan.y.split * plan.row + at) * plan.lanes;
          for (std::int64_t chunk = 0; chunk < lists.chunks; ++chunk) {
            kernels.sample(lists.At(chunk, begin, end), in, plan.y.split * plan.row * plan.lanes, rows, vectors, grad,
                           sums_of(chunk, begin));
          }
        }
      }
    }
  });
  Gather(structure, plan, shape, lists, sums.data(), pieces, dvalues, threads);
}

}  // namespace keras_lth::sparse

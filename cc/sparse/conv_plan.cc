#include "cc/sparse/conv_plan.h"

#include <limits>
#include <stdexcept>
#include <string>

#include "cc/sparse/conv_kernels.h"

namespace keras_lth::sparse {

namespace {

// Bytes of a patch that leave the second-level cache room for a run's outputs and the list of weights.
constexpr double kPatchBytes = 640 * 1024;

std::int64_t Outputs(std::int64_t extent, std::int64_t kernel, std::int64_t stride, bool same) {
  if (same) return (extent + stride - 1) / stride;
  return extent < kernel ? 0 : (extent - kernel) / stride + 1;
}

std::int64_t PaddingBefore(std::int64_t extent, std::int64_t kernel, std::int64_t stride, bool same) {
  if (!same) return 0;
  return std::max<std::int64_t>((Outputs(extent, kernel, stride, true) - 1) * stride + kernel - extent, 0) / 2;
}

Axis Forward(std::int64_t extent, std::int64_t kernel, std::int64_t stride, bool same) {
  const std::int64_t outputs = Outputs(extent, kernel, stride, same);
  return {outputs, stride, kernel, -PaddingBefore(extent, kernel, stride, same), extent, 1, 0, outputs};
}

// Padded input pixel u = q * stride + phase gets tap d of output q - (d - phase) / stride where d % stride == phase.
Axis Transposed(std::int64_t extent, std::int64_t kernel, std::int64_t stride, bool same) {
  const std::int64_t padding = PaddingBefore(extent, kernel, stride, same);
  const std::int64_t first = padding / stride;
  const std::int64_t back = (kernel - 1) / stride;
  const std::int64_t positions = extent == 0 ? 0 : (padding + extent - 1) / stride - first + 1;
  return {positions, 1,      back + 1,                 first - back, Outputs(extent, kernel, stride, same),
          stride,    first * stride - padding, extent};
}

// Cycles for a group of lanes, roughly; measured on Zen 4.
double Cost(const Axis& y, const Axis& x, const Work& work, std::int64_t lanes) {
  const auto pixels = static_cast<double>(y.tile * x.tile);
  const auto runs = static_cast<double>(Runs(x.tile));
  const double run = static_cast<double>(x.tile) / runs;
  const double multiply = work.width == 1 ? std::max(4.0, 1.5 * run + 1) : 1.1 * run + 0.5;
  const auto patch = static_cast<double>(y.Patch() * x.Patch() * work.channels_in);
  const double bytes = patch * static_cast<double>(lanes) * sizeof(float);
  const double spill = 1 + 0.5 * std::min(2.0, std::max(0.0, bytes / kPatchBytes - 1));
  return static_cast<double>(y.tile) * runs * multiply * spill * static_cast<double>(work.multiplies) + 8 * patch +
         8 * pixels * static_cast<double>(work.channels_out * y.phases * x.phases);
}

void Cut(Axis* axis, std::int64_t tile) {
  axis->tile = tile;
  axis->tiles = (axis->positions + tile - 1) / tile;
}

// Calls visit(tile) for every size that a number of equal tiles can have.
template <class Visit>
void Sizes(std::int64_t positions, Visit visit) {
  std::int64_t last = 0;
  for (std::int64_t tiles = 1; tiles <= positions; ++tiles) {
    const std::int64_t tile = (positions + tiles - 1) / tiles;
    if (tile != last) visit(tile);
    last = tile;
    // The next number of tiles that makes them smaller.
    if (tile > 1) tiles = std::max(tiles, (positions + tile - 2) / (tile - 1) - 1);
    if (tile == 1) break;
  }
}

Plan Complete(Axis y, Axis x, bool transposed, std::int64_t batch, const Work& work, std::int64_t lanes) {
  Plan plan{y, x, batch, lanes, work.channels_in, transposed};
  if (batch == 0 || y.positions == 0 || x.positions == 0) return plan;
  double least = std::numeric_limits<double>::infinity();
  Sizes(y.positions, [&](std::int64_t tile_y) {
    Cut(&y, tile_y);
    Sizes(x.positions, [&](std::int64_t tile_x) {
      Cut(&x, tile_x);
      const std::int64_t groups = (batch * y.tiles * x.tiles + lanes - 1) / lanes;
      const double cost = static_cast<double>(groups) * Cost(y, x, work, lanes);
      if (cost >= least) return;
      least = cost;
      plan.y = y;
      plan.x = x;
      plan.groups = groups;
    });
  });
  plan.run = (plan.x.Patch() + plan.x.split - 1) / plan.x.split;
  plan.row = plan.run * plan.x.split;
  // Odd, so that channels do not meet in the same sets of the cache.
  plan.plane = (plan.y.Patch() * plan.row) | 1;
  plan.scratch = plan.plane * work.channels_in * lanes;
  if (plan.scratch > std::numeric_limits<std::uint32_t>::max()) {
    throw std::invalid_argument("the kernel and its input channels are too large: a patch of one pixel's inputs for " +
                                std::to_string(lanes) + " images has " + std::to_string(plan.scratch) + " floats");
  }
  return plan;
}

}  // namespace

std::int64_t ConvShape::OutHeight() const { return Outputs(height, kernel_height, stride_height, same); }

std::int64_t ConvShape::OutWidth() const { return Outputs(width, kernel_width, stride_width, same); }

ConvShape Flattened(const ConvShape& shape) {
  if (shape.kernel_height != 1 || shape.kernel_width != 1 || shape.stride_height != 1 || shape.stride_width != 1) {
    return shape;
  }
  return {1, 1, shape.batch * shape.height * shape.width, 1, 1, 1, 1, false};
}

Plan PlanForward(const ConvShape& shape, const Work& work, std::int64_t lanes) {
  return Complete(Forward(shape.height, shape.kernel_height, shape.stride_height, shape.same),
                  Forward(shape.width, shape.kernel_width, shape.stride_width, shape.same), false, shape.batch, work,
                  lanes);
}

Plan PlanTransposed(const ConvShape& shape, const Work& work, std::int64_t lanes) {
  return Complete(Transposed(shape.height, shape.kernel_height, shape.stride_height, shape.same),
                  Transposed(shape.width, shape.kernel_width, shape.stride_width, shape.same), true, shape.batch,
                  work, lanes);
}

std::vector<std::int64_t> TapOffsets(const Plan& plan, const ConvShape& shape) {
  std::vector<std::int64_t> offsets;
  for (std::int64_t dy = 0; dy < shape.kernel_height; ++dy) {
    for (std::int64_t dx = 0; dx < shape.kernel_width; ++dx) {
      const std::int64_t py = plan.transposed ? plan.y.reach - 1 - dy / plan.y.phases : dy;
      const std::int64_t px = plan.transposed ? plan.x.reach - 1 - dx / plan.x.phases : dx;
      offsets.push_back(plan.At(py, px) * plan.lanes);
    }
  }
  return offsets;
}

void FindLanes(const Plan& plan, std::int64_t group, Lane* lanes) {
  const std::int64_t tiles = plan.y.tiles * plan.x.tiles;
  for (std::int64_t i = 0; i < plan.lanes; ++i) {
    const std::int64_t id = group * plan.lanes + i;
    const std::int64_t ty = id % tiles / plan.x.tiles, tx = id % plan.x.tiles;
    lanes[i] = {id < plan.batch * tiles ? id / tiles : -1, plan.y.Origin(ty), plan.x.Origin(tx), ty * plan.y.tile,
                tx * plan.x.tile};
  }
}

std::int64_t Runs(std::int64_t tile) { return (tile + kMostVectors - 1) / kMostVectors; }

}  // namespace keras_lth::sparse

#include "cc/tf/problem.h"

#include <array>
#include <limits>
#include <stdexcept>
#include <utility>

#include "cc/sparse/columns.h"

namespace keras_lth::tf {

namespace {

constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
constexpr std::array<const char*, kIndexArrays> kIndexNames = {"starts", "others", "row_starts", "row_others",
                                                               "row_places"};

[[noreturn]] void Refuse(const std::string& what) { throw std::invalid_argument(what); }

void Require(const char* name, const Dims& dims, const Dims& wanted) {
  if (dims != wanted) {
    Refuse(std::string(name) + " has shape " + Text(dims) + "; the structure and the other arguments need " +
           Text(wanted));
  }
}

// Throws unless the last dimension is `last`.
void RequireLast(const char* name, const Dims& dims, std::int64_t last) {
  if (dims.empty() || dims.back() != last) {
    Refuse(std::string(name) + " has shape " + Text(dims) + "; the structure needs [...," + std::to_string(last) +
           "]");
  }
}

void RequireImage(const char* name, const Dims& dims, std::int64_t channels) {
  if (dims.size() != 4 || dims[3] != channels) {
    Refuse(std::string(name) + " has shape " + Text(dims) + "; the structure needs [batch,height,width," +
           std::to_string(channels) + "]");
  }
}

std::int64_t RowsOf(const Dims& dims) {
  std::int64_t rows = 1;
  for (std::size_t i = 0; i + 1 < dims.size(); ++i) rows *= dims[i];
  return rows;
}

Dims WithLast(Dims dims, std::int64_t last) {
  dims.back() = last;
  return dims;
}

sparse::Structure StructureOf(const Geometry& geometry, const std::vector<View>& arguments) {
  sparse::Structure structure{};
  structure.rows = geometry.rows;
  structure.cols = geometry.cols;
  structure.taps = geometry.Taps();
  structure.block_rows = geometry.block_rows;
  structure.block_cols = geometry.block_cols;
  const Dims& others = arguments[kIndices + 1].dims;
  if (others.size() != 1) Refuse("others has shape " + Text(others) + ", not one dimension");
  structure.room = others[0];
  const Dims by_col{structure.ColGroups() + 1};
  const Dims by_row{structure.taps * structure.RowGroups() + 1};
  const Dims room{structure.room};
  const std::array<const Dims*, kIndexArrays> wanted = {&by_col, &room, &by_row, &room, &room};
  for (std::size_t i = 0; i < kIndexArrays; ++i) Require(kIndexNames[i], arguments[kIndices + i].dims, *wanted[i]);
  const auto list = [&arguments](std::size_t i) -> sparse::Index {
    const View& numbers = arguments[kIndices + i];
    if (numbers.half) return static_cast<const std::uint16_t*>(numbers.data);
    return static_cast<const std::int32_t*>(numbers.data);
  };
  const auto starts = [&arguments](std::size_t i) {
    return static_cast<const std::int64_t*>(arguments[kIndices + i].data);
  };
  structure.by_col = {starts(0), list(1), nullptr, nullptr};
  structure.by_row = {starts(2), list(3), list(4), starts(0)};
  return structure;
}

}  // namespace

std::string Text(const Dims& dims) {
  std::string text = "[";
  for (std::size_t i = 0; i < dims.size(); ++i) text += (i == 0 ? "" : ",") + std::to_string(dims[i]);
  return text + "]";
}

Geometry Geometry::Parse(const Dims& dims, bool conv) {
  const std::size_t count = conv ? 10 : 5;
  if (dims.size() != count || dims[0] != 0) {
    Refuse("geometry has shape " + Text(dims) + ", not [0] and " + std::to_string(count - 1) + " sizes");
  }
  for (std::size_t i = 1; i < (conv ? count - 1 : count); ++i) {
    if (dims[i] < 1 || dims[i] > kMost) Refuse("geometry has shape " + Text(dims) + ": sizes are 1 to 2^31 - 1");
  }
  const auto small = [&dims](std::size_t i) { return static_cast<std::int32_t>(dims[i]); };
  Geometry geometry{dims[1], dims[2], small(3), small(4)};
  if (conv) {
    geometry.kernel_height = small(5);
    geometry.kernel_width = small(6);
    geometry.stride_height = small(7);
    geometry.stride_width = small(8);
    geometry.same = dims[9] != 0;
  }
  const std::int64_t row_groups = (geometry.rows - 1) / geometry.block_rows + 1;
  if (geometry.Taps() > kMost / row_groups) {
    Refuse("geometry has shape " + Text(dims) + ": more than 2^31 - 1 groups of inputs");
  }
  return geometry;
}

sparse::ConvShape Geometry::Convolution(std::int64_t batch, std::int64_t height, std::int64_t width) const {
  if (!same && (height < kernel_height || width < kernel_width)) {
    Refuse("x has " + std::to_string(height) + " by " + std::to_string(width) + " pixels where the kernel has " +
           std::to_string(kernel_height) + " by " + std::to_string(kernel_width) + ": use padding='same'");
  }
  return {batch, height, width, kernel_height, kernel_width, stride_height, stride_width, same};
}

Dims ColumnDims(std::int64_t m, std::int64_t features) {
  const sparse::Tiles tiles = sparse::ColumnTiles(m);
  return {tiles.Count(), features, tiles.full};
}

Problem Prepare(Op op, const std::vector<View>& arguments, bool relu, std::int64_t m) {
  const Geometry geometry = Geometry::Parse(arguments[kGeometry].dims, IsConv(op));
  const bool columns = m != kRowMajor;
  Problem problem{op,           StructureOf(geometry, arguments), {}, 0, columns, arguments[0],
                  arguments[1], {nullptr, relu},                  {}};
  const bool conv = IsConv(op);
  const bool grad_input = op == Op::kMatmulGradInput || op == Op::kConv2dGradInput;
  const bool grad_values = op == Op::kMatmulGradValues || op == Op::kConv2dGradValues;
  const Dims values{problem.structure.room, geometry.block_rows, geometry.block_cols};
  if (!grad_values) Require("values", problem.second.dims, values);

  // The shapes at both sides of the kernel.
  Dims in, out;
  if (conv) {
    in = grad_input ? arguments.at(kExtra).dims : problem.first.dims;
    RequireImage("x", in, geometry.rows);
    problem.conv = geometry.Convolution(in[0], in[1], in[2]);
    sparse::Check(problem.structure, problem.conv);
    out = {in[0], problem.conv.OutHeight(), problem.conv.OutWidth(), geometry.cols};
  } else if (columns) {
    in = ColumnDims(m, geometry.rows);
    out = ColumnDims(m, geometry.cols);
    if (!grad_input) Require("x", problem.first.dims, in);
  } else if (grad_input) {
    out = problem.first.dims;
    RequireLast("dy", out, geometry.cols);
    in = WithLast(out, geometry.rows);
  } else {
    in = problem.first.dims;
    RequireLast("x", in, geometry.rows);
    out = WithLast(in, geometry.cols);
  }
  problem.m = columns ? m : RowsOf(in);
  if (grad_input) Require("dy", problem.first.dims, out);
  if (grad_values) Require("dy", problem.second.dims, out);
  if (IsForward(op) && arguments.size() > kExtra) {
    Require("bias", arguments[kExtra].dims, {geometry.cols});
    problem.epilogue.bias = static_cast<const float*>(arguments[kExtra].data);
  }
  problem.output = grad_input ? in : grad_values ? values : out;
  return problem;
}

std::string Named(std::string what) {
  const std::pair<std::string, const char*> names[] = {{"by_col.", ""}, {"by_row.", "row_"}};
  for (const auto& [list, argument] : names) {
    for (std::size_t at = what.find(list); at != std::string::npos; at = what.find(list)) {
      what.replace(at, list.size(), argument);
    }
  }
  return what;
}

void CheckIndices(const sparse::Structure& structure, sparse::Reads reads, sparse::Places places) {
  try {
    sparse::Check(structure, 0, reads, places);
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(Named(error.what()));
  }
}

sparse::Reads ReadsOf(Op op) {
  return op == Op::kMatmulGradInput || op == Op::kConv2dGradInput ? sparse::Reads::kByRow : sparse::Reads::kByCol;
}

std::size_t OutputBytes(const Problem& problem) {
  std::int64_t count = static_cast<std::int64_t>(sizeof(float));
  for (const std::int64_t dim : problem.output) {
    if (dim == 0) return 0;
    if (count > std::numeric_limits<std::int64_t>::max() / 2 / dim) {
      Refuse("x is too large: the result would have shape " + Text(problem.output));
    }
    count *= dim;
  }
  return static_cast<std::size_t>(count);
}

void Compute(const Problem& problem, isa::Level level, float* output) {
  const sparse::Run run{level, 0};
  const sparse::Values values{problem.second.data,
                              problem.second.half ? sparse::Storage::kBfloat16 : sparse::Storage::kFloat32};
  const auto* first = static_cast<const float*>(problem.first.data);
  const auto* second = static_cast<const float*>(problem.second.data);
  const sparse::Structure& structure = problem.structure;
  const bool columns = problem.columns;
  switch (problem.op) {
    case Op::kMatmul:
      return (columns ? sparse::MultiplyColumns : sparse::Multiply)(structure, values, first, problem.m,
                                                                    problem.epilogue, output, run);
    case Op::kMatmulGradInput:
      return (columns ? sparse::MultiplyColumnsTransposed : sparse::MultiplyTransposed)(structure, values, first,
                                                                                       problem.m, output, run);
    case Op::kMatmulGradValues:
      if (columns) return sparse::SampleColumns(structure, first, second, problem.m, output, nullptr, run);
      return sparse::SampleProduct(structure, first, second, problem.m, output, run);
    case Op::kConv2d:
      return sparse::Convolve(structure, values, problem.conv, first, problem.epilogue, output, run);
    case Op::kConv2dGradInput:
      return sparse::ConvolveTransposed(structure, values, problem.conv, first, output, run);
    case Op::kConv2dGradValues:
      return sparse::SampleConvolution(structure, problem.conv, first, second, output, run);
  }
}

}  // namespace keras_lth::tf

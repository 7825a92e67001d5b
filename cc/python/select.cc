// What _core binds of cc/select: checks what would be unsafe to read or write and calls it without the GIL.
// Flags are arrays of bool, a byte a value, or of uint8, a bit a value.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cc/isa/isa.h"
#include "cc/python/bind.h"
#include "cc/select/groups.h"
#include "cc/select/kernels.h"
#include "cc/select/select.h"

namespace keras_lth::python {

namespace py = pybind11;
namespace sel = keras_lth::select;

namespace {

using Index = std::optional<std::size_t>;
using Place = std::optional<std::pair<std::size_t, std::size_t>>;
using Arrays = std::vector<py::array>;

struct Named {
  const char* name;
  sel::Format format;
  py::ssize_t width;
};

constexpr Named kFormats[] = {
    {"float64", sel::Format::kFloat64, 8},
    {"float32", sel::Format::kFloat32, 4},
    {"float16", sel::Format::kFloat16, 2},
    {"bfloat16", sel::Format::kBfloat16, 2},
};

const Named& FormatOf(const std::string& name) {
  for (const Named& format : kFormats) {
    if (name == format.name) return format;
  }
  throw std::invalid_argument("no such format: " + name);
}

void Require(const py::array& array, py::ssize_t width, py::ssize_t size, const char* what) {
  const auto address = reinterpret_cast<std::uintptr_t>(array.data());
  const bool aligned = size == 0 || address % static_cast<std::uintptr_t>(width) == 0;
  if ((array.flags() & py::array::c_style) == 0 || array.itemsize() != width || array.size() != size || !aligned) {
    throw std::invalid_argument(std::string(what) + ": a C-contiguous aligned array of " + std::to_string(size) +
                                " items of " + std::to_string(width) + " bytes is needed");
  }
}

bool IsPacked(const py::array& flags, py::ssize_t size, const char* what) {
  const bool packed = flags.dtype().kind() != 'b';
  Require(flags, 1, packed ? (size + 7) / 8 : size, what);
  return packed;
}

// `selected` may be missing: nothing is marked then.
std::vector<sel::Array> Views(const Arrays& values, const Arrays* selected, const std::optional<Arrays>& eligible,
                              py::ssize_t width) {
  if ((selected != nullptr && selected->size() != values.size()) || (eligible && eligible->size() != values.size())) {
    throw std::invalid_argument("values, selected and eligible must be as many");
  }
  std::vector<sel::Array> views;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const py::ssize_t size = values[i].size();
    Require(values[i], width, size, "values");
    sel::Array view{values[i].data(), {}, {}, static_cast<std::size_t>(size)};
    if (eligible) {
      const py::array& flags = (*eligible)[i];
      const bool packed = IsPacked(flags, size, "eligible");
      view.eligible = {static_cast<const std::uint8_t*>(flags.data()), packed};
    }
    if (selected != nullptr) {
      py::array flags = (*selected)[i];
      const bool packed = IsPacked(flags, size, "selected");
      view.selected = {static_cast<std::uint8_t*>(flags.mutable_data()), packed};
    }
    views.push_back(view);
  }
  return views;
}

Place AsPair(const std::optional<sel::Position>& position) {
  if (!position) return std::nullopt;
  return std::make_pair(position->array, position->index);
}

const sel::Kernels& KernelsNamed(const std::string& isa) { return sel::KernelsFor(keras_lth::isa::Choose(isa)); }

std::pair<Place, std::optional<std::uint64_t>> TopK(const Arrays& values, const Arrays& selected,
                                                    const std::optional<Arrays>& eligible, const std::string& format,
                                                    std::size_t k, bool by_value, bool largest,
                                                    std::optional<std::uint64_t> near, bool threshold,
                                                    const std::string& isa, unsigned threads) {
  const Named& named = FormatOf(format);
  const std::vector<sel::Array> views = Views(values, &selected, eligible, named.width);
  const sel::Kernels& kernels = KernelsNamed(isa);
  sel::Selection selection;
  {
    const py::gil_scoped_release release;
    selection = sel::TopK(views, named.format, {by_value, largest}, {k, near, threshold}, kernels, threads);
  }
  return {AsPair(selection.nan), selection.threshold};
}

std::pair<py::array_t<std::int64_t>, Place> CountKeys(const Arrays& values, const std::optional<Arrays>& eligible,
                                                      const std::string& format, bool by_value, bool largest,
                                                      std::int64_t lo, std::int64_t hi, int shift,
                                                      const std::string& isa, unsigned threads) {
  const Named& named = FormatOf(format);
  const std::vector<sel::Array> views = Views(values, nullptr, eligible, named.width);
  const sel::Kernels& kernels = KernelsNamed(isa);
  py::array_t<std::int64_t> bins(sel::kBins);
  std::int64_t* data = bins.mutable_data();
  std::optional<sel::Position> nan;
  {
    const py::gil_scoped_release release;
    nan = sel::CountKeys(views, named.format, {by_value, largest}, lo, hi, shift, kernels, threads, data);
  }
  return {bins, AsPair(nan)};
}

void SelectFrom(const Arrays& values, const Arrays& selected, const std::optional<Arrays>& eligible,
                const std::string& format, bool by_value, bool largest, std::int64_t threshold, std::size_t ties,
                const std::string& isa, unsigned threads) {
  const Named& named = FormatOf(format);
  const std::vector<sel::Array> views = Views(values, &selected, eligible, named.width);
  const sel::Kernels& kernels = KernelsNamed(isa);
  const py::gil_scoped_release release;
  sel::SelectFrom(views, named.format, {by_value, largest}, threshold, ties, kernels, threads);
}

// `sides` must multiply up to `size` and fit.
void RequireSides(std::initializer_list<std::size_t> sides, py::ssize_t size) {
  std::size_t product = 1;
  bool fits = true;
  for (const std::size_t side : sides) fits = fits && !__builtin_mul_overflow(product, side, &product);
  if (!fits || product != static_cast<std::size_t>(size)) {
    throw std::invalid_argument("the sides do not multiply up to the size of the array");
  }
}

const std::uint8_t* Bytes(const std::optional<py::array>& flags, py::ssize_t size, const char* what) {
  if (!flags) return nullptr;
  Require(*flags, 1, size, what);
  return static_cast<const std::uint8_t*>(flags->data());
}

// outer, length, inner.
using Lengths = std::tuple<std::size_t, std::size_t, std::size_t>;

Index NOfM(const py::array& values, py::array selected, const std::optional<py::array>& eligible,
           const std::string& format, bool by_value, bool largest, const Lengths& sides, std::size_t n, std::size_t m,
           const std::string& isa, unsigned threads) {
  const Named& named = FormatOf(format);
  const auto [outer, length, inner] = sides;
  const py::ssize_t size = values.size();
  Require(values, named.width, size, "values");
  Require(selected, 1, size, "selected");
  RequireSides({outer, length, inner}, size);
  const sel::Along along{values.data(), Bytes(eligible, size, "eligible"),
                         static_cast<std::uint8_t*>(selected.mutable_data()), outer, length, inner};
  const sel::Kernels& kernels = KernelsNamed(isa);
  const py::gil_scoped_release release;
  return sel::NOfM(along, named.format, {by_value, largest}, n, m, kernels, threads);
}

// taps, rows, cols, and the sides of a block.
using Sides = std::tuple<std::size_t, std::size_t, std::size_t, std::size_t, std::size_t>;

sel::Blocked BlocksOf(const std::uint8_t* eligible, const Sides& sides, py::ssize_t size, py::ssize_t blocks) {
  const auto [taps, rows, cols, block_rows, block_cols] = sides;
  RequireSides({taps, rows, cols}, size);
  if (block_rows < 1 || block_cols < 1) throw std::invalid_argument("the sides of a block must be at least 1");
  // A larger block is a smaller one: sums of indices cannot overflow.
  const sel::Blocked blocked{eligible, taps, rows, cols, std::min(block_rows, std::max<std::size_t>(rows, 1)),
                             std::min(block_cols, std::max<std::size_t>(cols, 1))};
  RequireSides({taps, blocked.RowBlocks(), blocked.ColBlocks()}, blocks);
  return blocked;
}

Index ScoreBlocks(const py::array& values, const std::optional<py::array>& eligible, const std::string& format,
                  bool by_value, bool mean, const Sides& sides, py::array_t<double> scores,
                  py::array_t<std::int64_t> counts, const std::string& isa, unsigned threads) {
  const Named& named = FormatOf(format);
  const py::ssize_t size = values.size();
  Require(values, named.width, size, "values");
  Require(scores, 8, scores.size(), "scores");
  Require(counts, 8, scores.size(), "counts");
  const sel::Blocked blocked = BlocksOf(Bytes(eligible, size, "eligible"), sides, size, scores.size());
  const sel::Kernels& kernels = KernelsNamed(isa);
  double* score = scores.mutable_data();
  std::int64_t* count = counts.mutable_data();
  const void* data = values.data();
  const py::gil_scoped_release release;
  return sel::ScoreBlocks(data, blocked, named.format, by_value, mean, kernels, threads, score, count);
}

void ExpandBlocks(const py::array& of_blocks, py::array selected, const std::optional<py::array>& eligible,
                  const Sides& sides, unsigned threads) {
  Require(of_blocks, 1, of_blocks.size(), "of_blocks");
  Require(selected, 1, selected.size(), "selected");
  const sel::Blocked blocked =
      BlocksOf(Bytes(eligible, selected.size(), "eligible"), sides, selected.size(), of_blocks.size());
  const auto* flags = static_cast<const std::uint8_t*>(of_blocks.data());
  auto* out = static_cast<std::uint8_t*>(selected.mutable_data());
  const py::gil_scoped_release release;
  sel::ExpandBlocks(flags, blocked, threads, out);
}

}  // namespace

void BindSelect(py::module_& module) {
  module.attr("BINS") = sel::kBins;
  module.def("top_k", &TopK, py::arg("values"), py::arg("selected"), py::arg("eligible"), py::arg("format"),
             py::arg("k"), py::arg("by_value") = false, py::arg("largest") = true, py::arg("near") = py::none(),
             py::arg("threshold") = false, py::arg("isa") = "", py::arg("threads") = 0,
             "Writes the selection into `selected`; returns (array, index) of the first NaN or None, and the bits of "
             "the k-th value or None.");
  module.def("count_keys", &CountKeys, py::arg("values"), py::arg("eligible"), py::arg("format"), py::arg("by_value"),
             py::arg("largest"), py::arg("lo"), py::arg("hi"), py::arg("shift"), py::arg("isa") = "",
             py::arg("threads") = 0, "The histogram of keys in [lo, hi], and (array, index) of the first NaN or None.");
  module.def("select_from", &SelectFrom, py::arg("values"), py::arg("selected"), py::arg("eligible"),
             py::arg("format"), py::arg("by_value"), py::arg("largest"), py::arg("threshold"), py::arg("ties"),
             py::arg("isa") = "", py::arg("threads") = 0,
             "Writes keys above the threshold and the first `ties` equal to it into `selected`.");
  module.def("n_of_m", &NOfM, py::arg("values"), py::arg("selected"), py::arg("eligible"), py::arg("format"),
             py::arg("by_value"), py::arg("largest"), py::arg("sides"), py::arg("n"), py::arg("m"),
             py::arg("isa") = "", py::arg("threads") = 0, "Writes n of every m; returns the index of a NaN or None.");
  module.def("score_blocks", &ScoreBlocks, py::arg("values"), py::arg("eligible"), py::arg("format"),
             py::arg("by_value"), py::arg("mean"), py::arg("sides"), py::arg("scores").noconvert(),
             py::arg("counts").noconvert(), py::arg("isa") = "", py::arg("threads") = 0,
             "Writes the score of each block and its number of values; returns the index of a NaN or None.");
  module.def("expand_blocks", &ExpandBlocks, py::arg("of_blocks"), py::arg("selected"), py::arg("eligible"),
             py::arg("sides"), py::arg("threads") = 0, "Writes the flag of each block at all its values.");
}

}  // namespace keras_lth::python

// What _core.top_k binds: checks what would be unsafe to read or write and calls the C++ core without the GIL.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cc/isa/isa.h"
#include "cc/python/bind.h"
#include "cc/select/kernels.h"
#include "cc/select/select.h"

namespace keras_lth::python {

namespace py = pybind11;
namespace sel = keras_lth::select;

namespace {

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

std::optional<std::pair<std::size_t, std::size_t>> TopK(const std::vector<py::array>& values,
                                                        const std::vector<py::array>& selected,
                                                        const std::optional<std::vector<py::array>>& eligible,
                                                        const std::string& format, std::size_t k,
                                                        const std::string& isa, unsigned threads) {
  if (selected.size() != values.size() || (eligible && eligible->size() != values.size())) {
    throw std::invalid_argument("values, selected and eligible must be as many");
  }
  const Named& named = FormatOf(format);
  std::vector<sel::Array> arrays;
  arrays.reserve(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const py::ssize_t size = values[i].size();
    Require(values[i], named.width, size, "values");
    Require(selected[i], 1, size, "selected");
    if (eligible) Require((*eligible)[i], 1, size, "eligible");
    py::array out = selected[i];
    arrays.push_back({values[i].data(),
                      eligible ? static_cast<const std::uint8_t*>((*eligible)[i].data()) : nullptr,
                      static_cast<std::uint8_t*>(out.mutable_data()), static_cast<std::size_t>(size)});
  }
  const sel::Kernels& kernels = sel::KernelsFor(keras_lth::isa::Choose(isa));
  std::optional<sel::Position> nan;
  {
    const py::gil_scoped_release release;
    nan = sel::TopK(arrays, named.format, k, kernels, threads);
  }
  if (!nan) return std::nullopt;
  return std::make_pair(nan->array, nan->index);
}

}  // namespace

void BindSelect(py::module_& module) {
  module.def("top_k", &TopK, py::arg("values"), py::arg("selected"), py::arg("eligible"), py::arg("format"),
             py::arg("k"), py::arg("isa") = "", py::arg("threads") = 0,
             "Writes the selection into `selected`; returns (array, index) of the first NaN, or None.");
}

}  // namespace keras_lth::python

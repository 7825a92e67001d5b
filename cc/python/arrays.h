// Arrays, structures and options of a sparse product as Python gives them, checked.
#ifndef KERAS_LTH_CC_PYTHON_ARRAYS_H_
#define KERAS_LTH_CC_PYTHON_ARRAYS_H_

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>

#include "cc/isa/isa.h"
#include "cc/sparse/spmm.h"
#include "cc/sparse/structure.h"

#pragma GCC visibility push(hidden)  // as pybind11's own types are

namespace keras_lth::python {

namespace py = pybind11;

// A C-contiguous, aligned array of `size` items of type T; throws otherwise.
template <class T>
const T* Items(const py::array& array, std::int64_t size, const char* what) {
  const auto address = reinterpret_cast<std::uintptr_t>(array.data());
  const bool aligned = size == 0 || address % sizeof(T) == 0;
  const bool typed = array.dtype().kind() == py::dtype::of<T>().kind() && array.itemsize() == sizeof(T);
  if ((array.flags() & py::array::c_style) == 0 || !typed || array.size() != size || !aligned) {
    throw std::invalid_argument(std::string(what) + ": a C-contiguous aligned array of " + std::to_string(size) +
                                " items is needed");
  }
  return static_cast<const T*>(array.data());
}

inline float* Output(py::array* array, std::int64_t size, const char* what) {
  Items<float>(*array, size, what);
  return static_cast<float*>(array->mutable_data());
}

// The indices of a structure, held as long as the structure is used. They are checked once: a structure remembers the
// arrays that were found right, as long as it has these and nobody may write to them.
class Held {
 public:
  Held(const py::object& object, unsigned threads) {
    const auto block = object.attr("block").cast<std::pair<std::int32_t, std::int32_t>>();
    structure_.rows = object.attr("rows").cast<std::int64_t>();
    structure_.cols = object.attr("cols").cast<std::int64_t>();
    structure_.taps = object.attr("taps").cast<std::int64_t>();
    structure_.room = object.attr("room").cast<std::int64_t>();
    structure_.block_rows = block.first;
    structure_.block_cols = block.second;
    if (structure_.rows < 1 || structure_.cols < 1 || structure_.taps < 1 || block.first < 1 || block.second < 1 ||
        structure_.room < 0) {
      throw std::invalid_argument("structure: sizes must be positive");
    }
    const std::int64_t room = structure_.room;
    structure_.by_col = {Take<std::int64_t>(object, "starts", structure_.ColGroups() + 1, 0),
                         TakeIndex(object, "others", room, 1), nullptr, nullptr};
    structure_.by_row = {Take<std::int64_t>(object, "row_starts", structure_.taps * structure_.RowGroups() + 1, 2),
                         TakeIndex(object, "row_others", room, 3), TakeIndex(object, "row_places", room, 4),
                         structure_.by_col.starts};
    if (Known(object)) return;
    {
      const py::gil_scoped_release release;
      sparse::Check(structure_, threads);
    }
    if (!Writeable()) {
      py::setattr(object, kChecked, py::make_tuple(arrays_[0], arrays_[1], arrays_[2], arrays_[3], arrays_[4]));
    }
  }

  const sparse::Structure& operator*() const { return structure_; }
  std::int64_t values() const {
    return structure_.room * structure_.block_rows * structure_.block_cols;
  }

 private:
  static constexpr const char* kChecked = "_checked";

  bool Writeable() const {
    return std::any_of(std::begin(arrays_), std::end(arrays_), [](const py::array& a) { return a.writeable(); });
  }

  bool Known(const py::object& object) const {
    const py::object checked = py::getattr(object, kChecked, py::none());
    if (checked.is_none() || Writeable()) return false;
    const auto arrays = checked.cast<py::tuple>();
    std::size_t same = 0;
    while (same < arrays.size() && same < std::size(arrays_) && arrays[same].ptr() == arrays_[same].ptr()) ++same;
    return same == std::size(arrays_);
  }

  template <class T>
  const T* Take(const py::object& object, const char* name, std::int64_t size, int slot) {
    arrays_[slot] = object.attr(name).cast<py::array>();
    return Items<T>(arrays_[slot], size, name);
  }

  sparse::Index TakeIndex(const py::object& object, const char* name, std::int64_t size, int slot) {
    const auto array = object.attr(name).cast<py::array>();
    if (array.dtype().kind() == 'u') return Take<std::uint16_t>(object, name, size, slot);
    return Take<std::int32_t>(object, name, size, slot);
  }

  sparse::Structure structure_{};
  py::array arrays_[5];
};

// float32, or bfloat16 seen as uint16.
inline sparse::Values ValuesOf(const py::array& values, std::int64_t size) {
  if (values.dtype().kind() == 'u') {
    return {Items<std::uint16_t>(values, size, "values"), sparse::Storage::kBfloat16};
  }
  return {Items<float>(values, size, "values"), sparse::Storage::kFloat32};
}

inline sparse::Run RunOf(const std::string& level, unsigned threads) { return {isa::Choose(level), threads}; }

inline sparse::Epilogue EpilogueOf(const py::object& bias, bool relu, std::int64_t cols) {
  sparse::Epilogue epilogue;
  if (!bias.is_none()) epilogue.bias = Items<float>(bias.cast<py::array>(), cols, "bias");
  epilogue.relu = relu;
  return epilogue;
}

}  // namespace keras_lth::python

#pragma GCC visibility pop

#endif  // KERAS_LTH_CC_PYTHON_ARRAYS_H_

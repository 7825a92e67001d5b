// A chain of steps over NumPy arrays, which it keeps alive.
#include "cc/chain/chain.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "cc/python/arrays.h"
#include "cc/python/bind.h"

namespace py = pybind11;
namespace chain = keras_lth::chain;
namespace sparse = keras_lth::sparse;

namespace {

using keras_lth::python::EpilogueOf;
using keras_lth::python::Held;
using keras_lth::python::Items;
using keras_lth::python::Output;

// batch, height, width, channels of a C-contiguous float32 array.
chain::Images ImagesOf(const py::array& array, const char* what) {
  if (array.ndim() != 4) throw std::invalid_argument(std::string(what) + ": four axes are needed");
  Items<float>(array, array.size(), what);
  return {array.shape(0), array.shape(1), array.shape(2), array.shape(3)};
}

// height, width, stride_y, stride_x, top, left
chain::Window WindowOf(const std::array<std::int64_t, 6>& sizes) {
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] < (i < 4 ? 1 : 0)) throw std::invalid_argument("window: sizes and strides of at least 1 are needed");
  }
  return {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5]};
}

class Chain {
 public:
  explicit Chain(const std::string& level) : chain_(keras_lth::isa::Choose(level)) {}

  void Convolve(const py::object& structure, const py::array& values, const py::array& x,
                const std::array<std::int64_t, 6>& window, const py::object& bias, bool relu, py::array y) {
    const Held held(structure, 1);
    const sparse::Epilogue epilogue = EpilogueOf(bias, relu, (*held).cols);
    chain_.AddConvolution(*held, Items<float>(values, held.values(), "values"), ImagesOf(x, "x"), WindowOf(window),
                          ImagesOf(y, "y"), Items<float>(x, x.size(), "x"), epilogue, Output(&y, y.size(), "y"));
    Keep(x, bias, y);
  }

  void Multiply(const py::object& structure, const py::array& values, const py::array& x, const py::object& bias,
                bool relu, py::array y) {
    const Held held(structure, 1);
    const std::int64_t m = y.size() / (*held).cols;
    const sparse::Epilogue epilogue = EpilogueOf(bias, relu, (*held).cols);
    chain_.AddProduct(*held, Items<float>(values, held.values(), "values"), m,
                      Items<float>(x, m * (*held).rows, "x"), epilogue, Output(&y, m * (*held).cols, "y"));
    // The indices are those of the structure, which nobody may write to.
    Keep(x, bias, y, values, structure.attr("starts"), structure.attr("others"));
  }

  void Pool(const py::array& x, const std::array<std::int64_t, 6>& window, bool largest, py::array y) {
    chain_.AddPool(ImagesOf(x, "x"), WindowOf(window), ImagesOf(y, "y"), largest, Items<float>(x, x.size(), "x"),
                   Output(&y, y.size(), "y"));
    Keep(x, y);
  }

  void Sum(const py::array& a, const py::array& b, bool relu, py::array y) {
    chain_.AddSum(y.size(), Items<float>(a, y.size(), "a"), Items<float>(b, y.size(), "b"), relu,
                  Output(&y, y.size(), "y"));
    Keep(a, b, y);
  }

  void Run(unsigned threads) const {
    const py::gil_scoped_release release;
    chain_.Run(threads);
  }

 private:
  template <class... Objects>
  void Keep(const Objects&... objects) {
    (kept_.append(objects), ...);
  }

  chain::Chain chain_;
  py::list kept_;
};

}  // namespace

void keras_lth::python::BindChain(py::module_& module) {
  py::class_<Chain>(module, "Chain")
      .def(py::init<const std::string&>(), py::arg("isa") = "")
      .def("convolve", &Chain::Convolve, py::arg("structure"), py::arg("values"), py::arg("x"), py::arg("window"),
           py::arg("bias"), py::arg("relu"), py::arg("y"))
      .def("multiply", &Chain::Multiply, py::arg("structure"), py::arg("values"), py::arg("x"), py::arg("bias"),
           py::arg("relu"), py::arg("y"))
      .def("pool", &Chain::Pool, py::arg("x"), py::arg("window"), py::arg("largest"), py::arg("y"))
      .def("sum", &Chain::Sum, py::arg("a"), py::arg("b"), py::arg("relu"), py::arg("y"))
      .def("__call__", &Chain::Run, py::arg("threads") = 0);
}

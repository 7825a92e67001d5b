// The sparse products for NumPy: shapes and dtypes are checked here, indices in the core.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <tuple>
#include <utility>

#include "cc/python/arrays.h"
#include "cc/python/bind.h"
#include "cc/sparse/conv.h"
#include "cc/sparse/spmm.h"
#include "cc/sparse/structure.h"

namespace py = pybind11;
namespace sparse = keras_lth::sparse;

namespace {

using keras_lth::python::EpilogueOf;
using keras_lth::python::Held;
using keras_lth::python::Items;
using keras_lth::python::Output;
using keras_lth::python::RunOf;
using keras_lth::python::ValuesOf;

void Multiply(const py::object& structure, const py::array& values, const py::array& x, const py::object& bias,
              bool relu, py::array y, const std::string& level, unsigned threads) {
  const Held held(structure, threads);
  const std::int64_t m = y.size() / (*held).cols;
  const sparse::Values stored = ValuesOf(values, held.values());
  const sparse::Epilogue epilogue = EpilogueOf(bias, relu, (*held).cols);
  const float* in = Items<float>(x, m * (*held).rows, "x");
  float* out = Output(&y, m * (*held).cols, "y");
  const sparse::Run run = RunOf(level, threads);
  const py::gil_scoped_release release;
  sparse::Multiply(*held, stored, in, m, epilogue, out, run);
}

void MultiplyTransposed(const py::object& structure, const py::array& values, const py::array& dy, py::array dx,
                        const std::string& level, unsigned threads) {
  const Held held(structure, threads);
  const std::int64_t m = dy.size() / (*held).cols;
  const sparse::Values stored = ValuesOf(values, held.values());
  const float* in = Items<float>(dy, m * (*held).cols, "dy");
  float* out = Output(&dx, m * (*held).rows, "dx");
  const sparse::Run run = RunOf(level, threads);
  const py::gil_scoped_release release;
  sparse::MultiplyTransposed(*held, stored, in, m, out, run);
}

void SampleProduct(const py::object& structure, const py::array& x, const py::array& dy, py::array dvalues,
                   const std::string& level, unsigned threads) {
  const Held held(structure, threads);
  const std::int64_t m = dy.size() / (*held).cols;
  const float* in = Items<float>(x, m * (*held).rows, "x");
  const float* out_gradient = Items<float>(dy, m * (*held).cols, "dy");
  float* out = Output(&dvalues, held.values(), "dvalues");
  const sparse::Run run = RunOf(level, threads);
  const py::gil_scoped_release release;
  sparse::SampleProduct(*held, in, out_gradient, m, out, run);
}

// sizes: batch, height, width; kernel and stride: (height, width).
sparse::ConvShape ShapeOf(const std::tuple<std::int64_t, std::int64_t, std::int64_t>& sizes,
                          std::pair<std::int32_t, std::int32_t> kernel, std::pair<std::int32_t, std::int32_t> stride,
                          bool same) {
  return {std::get<0>(sizes), std::get<1>(sizes), std::get<2>(sizes), kernel.first,
          kernel.second,      stride.first,       stride.second,      same};
}

using Sizes = std::tuple<std::int64_t, std::int64_t, std::int64_t>;
using Pair = std::pair<std::int32_t, std::int32_t>;

std::int64_t Inputs(const sparse::Structure& structure, const sparse::ConvShape& shape) {
  return shape.batch * shape.height * shape.width * structure.rows;
}

std::int64_t Outputs(const sparse::Structure& structure, const sparse::ConvShape& shape) {
  return shape.batch * shape.OutHeight() * shape.OutWidth() * structure.cols;
}

void Convolve(const py::object& structure, const py::array& values, const py::array& x, const Sizes& sizes,
              const Pair& kernel, const Pair& stride, bool same, const py::object& bias, bool relu, py::array y,
              const std::string& level, unsigned threads) {
  const Held held(structure, threads);
  const sparse::ConvShape shape = ShapeOf(sizes, kernel, stride, same);
  sparse::Check(*held, shape);
  const sparse::Values stored = ValuesOf(values, held.values());
  const sparse::Epilogue epilogue = EpilogueOf(bias, relu, (*held).cols);
  const float* in = Items<float>(x, Inputs(*held, shape), "x");
  float* out = Output(&y, Outputs(*held, shape), "y");
  const sparse::Run run = RunOf(level, threads);
  const py::gil_scoped_release release;
  sparse::Convolve(*held, stored, shape, in, epilogue, out, run);
}

void ConvolveTransposed(const py::object& structure, const py::array& values, const py::array& dy, const Sizes& sizes,
                        const Pair& kernel, const Pair& stride, bool same, py::array dx, const std::string& level,
                        unsigned threads) {
  const Held held(structure, threads);
  const sparse::ConvShape shape = ShapeOf(sizes, kernel, stride, same);
  sparse::Check(*held, shape);
  const sparse::Values stored = ValuesOf(values, held.values());
  const float* in = Items<float>(dy, Outputs(*held, shape), "dy");
  float* out = Output(&dx, Inputs(*held, shape), "dx");
  const sparse::Run run = RunOf(level, threads);
  const py::gil_scoped_release release;
  sparse::ConvolveTransposed(*held, stored, shape, in, out, run);
}

void SampleConvolution(const py::object& structure, const py::array& x, const py::array& dy, const Sizes& sizes,
                       const Pair& kernel, const Pair& stride, bool same, py::array dvalues, const std::string& level,
                       unsigned threads) {
  const Held held(structure, threads);
  const sparse::ConvShape shape = ShapeOf(sizes, kernel, stride, same);
  sparse::Check(*held, shape);
  const float* in = Items<float>(x, Inputs(*held, shape), "x");
  const float* out_gradient = Items<float>(dy, Outputs(*held, shape), "dy");
  float* out = Output(&dvalues, held.values(), "dvalues");
  const sparse::Run run = RunOf(level, threads);
  const py::gil_scoped_release release;
  sparse::SampleConvolution(*held, shape, in, out_gradient, out, run);
}

}  // namespace

void keras_lth::python::BindSparse(py::module_& module) {
  module.def("multiply", &Multiply, py::arg("structure"), py::arg("values"), py::arg("x"), py::arg("bias"),
             py::arg("relu"), py::arg("y"), py::arg("isa") = "", py::arg("threads") = 0);
  module.def("multiply_transposed", &MultiplyTransposed, py::arg("structure"), py::arg("values"), py::arg("dy"),
             py::arg("dx"), py::arg("isa") = "", py::arg("threads") = 0);
  module.def("sample_product", &SampleProduct, py::arg("structure"), py::arg("x"), py::arg("dy"), py::arg("dvalues"),
             py::arg("isa") = "", py::arg("threads") = 0);
  module.def("convolve", &Convolve, py::arg("structure"), py::arg("values"), py::arg("x"), py::arg("sizes"),
             py::arg("kernel"), py::arg("stride"), py::arg("same"), py::arg("bias"), py::arg("relu"), py::arg("y"),
             py::arg("isa") = "", py::arg("threads") = 0);
  module.def("convolve_transposed", &ConvolveTransposed, py::arg("structure"), py::arg("values"), py::arg("dy"),
             py::arg("sizes"), py::arg("kernel"), py::arg("stride"), py::arg("same"), py::arg("dx"),
             py::arg("isa") = "", py::arg("threads") = 0);
  module.def("sample_convolution", &SampleConvolution, py::arg("structure"), py::arg("x"), py::arg("dy"),
             py::arg("sizes"), py::arg("kernel"), py::arg("stride"), py::arg("same"), py::arg("dvalues"),
             py::arg("isa") = "", py::arg("threads") = 0);
}

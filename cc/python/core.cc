// keras_lth._core. What a user sees, keras_lth.ops, checks and explains arguments before it comes here.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "cc/isa/isa.h"
#include "cc/python/bind.h"

namespace {

std::vector<std::string> Supported() {
  std::vector<std::string> names;
  for (const keras_lth::isa::Level level : keras_lth::isa::Supported()) names.emplace_back(keras_lth::isa::Name(level));
  return names;
}

std::string Chosen() { return keras_lth::isa::Name(keras_lth::isa::Choose("")); }

}  // namespace

PYBIND11_MODULE(_core, module) {
  module.doc() = "The C++ core of keras_lth; use keras_lth.ops.";
  module.def("supported", &Supported, "Instruction sets this processor runs, best first.");
  module.def("chosen", &Chosen, "The instruction set that is used.");
  keras_lth::python::BindChain(module);
  keras_lth::python::BindSelect(module);
  keras_lth::python::BindSparse(module);
}

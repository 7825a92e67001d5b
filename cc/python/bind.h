// The parts of keras_lth._core: each room of the C++ core binds its own functions.
#ifndef KERAS_LTH_CC_PYTHON_BIND_H_
#define KERAS_LTH_CC_PYTHON_BIND_H_

#include <pybind11/pybind11.h>

namespace keras_lth::python {

void BindChain(pybind11::module_& module);
void BindSelect(pybind11::module_& module);
void BindSparse(pybind11::module_& module);

}  // namespace keras_lth::python

#endif  // KERAS_LTH_CC_PYTHON_BIND_H_

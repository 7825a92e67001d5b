// Owners of what TensorFlow's C API hands out, and exceptions in place of its status codes.
#ifndef KERAS_LTH_CC_TF_HANDLES_H_
#define KERAS_LTH_CC_TF_HANDLES_H_

#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "cc/tf/c_api.h"
#include "cc/tf/problem.h"

namespace keras_lth::tf {

struct Delete {
  void operator()(TF_Status* status) const { Api().TF_DeleteStatus(status); }
  void operator()(TF_Tensor* tensor) const { Api().TF_DeleteTensor(tensor); }
  void operator()(TF_ShapeHandle* shape) const { Api().TF_DeleteShapeHandle(shape); }
  void operator()(TF_DimensionHandle* dim) const { Api().TF_DeleteDimensionHandle(dim); }
};

using Status = std::unique_ptr<TF_Status, Delete>;
using Tensor = std::unique_ptr<TF_Tensor, Delete>;
using Shape = std::unique_ptr<TF_ShapeHandle, Delete>;

// What TensorFlow said.
class Error : public std::runtime_error {
 public:
  Error(TF_Code code, const std::string& what) : std::runtime_error(what), code_(code) {}
  TF_Code code() const { return code_; }

 private:
  TF_Code code_;
};

inline Status NewStatus() { return Status(Api().TF_NewStatus()); }

// Throws Error unless the status is OK.
inline void Ensure(const TF_Status* status) {
  const TF_Code code = Api().TF_GetCode(status);
  if (code != kOk) throw Error(code, Api().TF_Message(status));
}

inline Dims DimsOf(const TF_Tensor* tensor) {
  Dims dims(static_cast<std::size_t>(Api().TF_NumDims(tensor)));
  for (std::size_t i = 0; i < dims.size(); ++i) dims[i] = Api().TF_Dim(tensor, static_cast<int>(i));
  return dims;
}

inline Tensor InputOf(TF_OpKernelContext* context, int i, TF_Status* status) {
  TF_Tensor* tensor = nullptr;
  Api().TF_GetInput(context, i, &tensor, status);
  Tensor owned(tensor);
  Ensure(status);
  return owned;
}

// Calls `body`; where it throws, the code and the message go to `status` and the result is false.
template <class Body>
bool Guard(TF_Status* status, const Body& body) noexcept {
  try {
    body();
    return true;
  } catch (const Error& error) {
    Api().TF_SetStatus(status, error.code(), error.what());
  } catch (const std::invalid_argument& error) {
    Api().TF_SetStatus(status, kInvalidArgument, error.what());
  } catch (const std::bad_alloc&) {
    Api().TF_SetStatus(status, kResourceExhausted, "out of memory in an op of keras_lth");
  } catch (const std::length_error&) {
    Api().TF_SetStatus(status, kResourceExhausted, "out of memory in an op of keras_lth");
  } catch (const std::exception& error) {
    Api().TF_SetStatus(status, kInternal, error.what());
  } catch (...) {
    Api().TF_SetStatus(status, kInternal, "unknown exception in an op of keras_lth");
  }
  return false;
}

}  // namespace keras_lth::tf

#endif  // KERAS_LTH_CC_TF_HANDLES_H_

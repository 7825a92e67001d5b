// Registers the ops and their kernels when the library is loaded (tf.load_op_library), and the few functions that
// Python calls in it.
#include <cstdio>
#include <string>

#include "cc/tf/handles.h"
#include "cc/tf/kernels.h"
#include "cc/tf/normalize.h"
#include "cc/tf/xla.h"
#include "cc/threads/for_each.h"

#define KERAS_LTH_EXPORT extern "C" __attribute__((visibility("default")))

namespace keras_lth::tf {

namespace {

const char* Name(Op op) {
  switch (op) {
    case Op::kMatmul:
      return "KerasLthSparseMatmul";
    case Op::kMatmulGradInput:
      return "KerasLthSparseMatmulGradInput";
    case Op::kMatmulGradValues:
      return "KerasLthSparseMatmulGradValues";
    case Op::kConv2d:
      return "KerasLthSparseConv2d";
    case Op::kConv2dGradInput:
      return "KerasLthSparseConv2dGradInput";
    case Op::kConv2dGradValues:
      return "KerasLthSparseConv2dGradValues";
  }
  return "";
}

void Register(Op op) {
  const bool grad_values = op == Op::kMatmulGradValues || op == Op::kConv2dGradValues;
  TF_OpDefinitionBuilder* definition = Api().TF_NewOpDefinitionBuilder(Name(op));
  const auto input = [&](const char* spec) { Api().TF_OpDefinitionBuilderAddInput(definition, spec); };
  const auto attribute = [&](const char* spec) { Api().TF_OpDefinitionBuilderAddAttr(definition, spec); };
  if (!grad_values) attribute("T: {float, bfloat16} = DT_FLOAT");
  attribute("index: {int32, uint16} = DT_INT32");
  if (IsForward(op)) {
    attribute("biases: int >= 0");  // 0 or 1: an input that may be absent
    attribute("relu: bool = false");
  }
  input(IsForward(op) || grad_values ? "x: float" : "dy: float");
  input(grad_values ? "dy: float" : "values: T");
  input("starts: int64");
  input("others: index");
  input("row_starts: int64");
  input("row_others: index");
  input("row_places: index");
  input("geometry: int8");
  if (IsForward(op)) input("bias: biases * float");
  if (op == Op::kConv2dGradInput) input("x: float");
  Api().TF_OpDefinitionBuilderAddOutput(definition, IsForward(op) ? "y: float"
                                                    : grad_values ? "dvalues: float"
                                                                  : "dx: float");
  Api().TF_OpDefinitionBuilderSetShapeInferenceFunction(definition, ShapeFor(op));
  const Status status = NewStatus();
  Api().TF_RegisterOpDefinition(definition, status.get());
  Ensure(status.get());
  Api().TF_RegisterKernelBuilder(
      Name(op), Api().TF_NewKernelBuilder(Name(op), "CPU", CreateFor(op), &ComputeKernel, &DeleteKernel), status.get());
  Ensure(status.get());
}

// A library that finds no TensorFlow, or not all of it, loads without its ops and says why.
bool RegisterAll() noexcept {
  if (const char* missing = FindApi()) {
    std::fprintf(stderr, "keras_lth: the TensorFlow ops are not registered: there is no %s in this process\n", missing);
    return false;
  }
  const Status status = NewStatus();
  if (Guard(status.get(), [] {
        for (int op = 0; op < kOps; ++op) Register(static_cast<Op>(op));
        RegisterNormalize();
      })) {
    return true;
  }
  std::fprintf(stderr, "keras_lth: the TensorFlow ops are not registered: %s\n", Api().TF_Message(status.get()));
  return false;
}

const bool registered = RegisterAll();

}  // namespace

}  // namespace keras_lth::tf

// Threads a product may use; 0 goes back to KERAS_LTH_THREADS, or all processors.
KERAS_LTH_EXPORT void keras_lth_set_threads(unsigned threads) { keras_lth::threads::SetSize(threads); }

// Where XLA can call the products: the name of the target, else null. Call it once.
KERAS_LTH_EXPORT const char* keras_lth_xla_target() {
  return keras_lth::tf::registered && keras_lth::tf::RegisterXlaTarget() ? keras_lth::tf::kTarget : nullptr;
}

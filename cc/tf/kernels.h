// The kernels and the shape functions of the ops, as TensorFlow's C API wants them.
#ifndef KERAS_LTH_CC_TF_KERNELS_H_
#define KERAS_LTH_CC_TF_KERNELS_H_

#include "cc/tf/c_api.h"
#include "cc/tf/problem.h"

namespace keras_lth::tf {

// Creation differs from op to op, the rest is the same.
using CreateKernel = void* (*)(TF_OpKernelConstruction*);
CreateKernel CreateFor(Op op);
void ComputeKernel(void* kernel, TF_OpKernelContext* context);
void DeleteKernel(void* kernel);

using ShapeFunction = void (*)(TF_ShapeInferenceContext*, TF_Status*);
ShapeFunction ShapeFor(Op op);

}  // namespace keras_lth::tf

#endif  // KERAS_LTH_CC_TF_KERNELS_H_

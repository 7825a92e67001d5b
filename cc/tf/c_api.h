// Those functions of TensorFlow's C kernel and op API that the ops use. Declared here, so that the library is built
// without TensorFlow and one file serves every version; tests/ops/test_tf_library.py compiles these declarations
// together with the installed headers. They are not linked but looked up in the TensorFlow that loads the library,
// because some versions load themselves with RTLD_LOCAL. Call them as Api().TF_NewStatus().
#ifndef KERAS_LTH_CC_TF_C_API_H_
#define KERAS_LTH_CC_TF_C_API_H_

#include <cstddef>
#include <cstdint>

extern "C" {

// Defined by who has included TensorFlow's own headers.
#ifndef KERAS_LTH_TF_HEADERS
typedef int TF_DataType;
typedef int TF_Code;
typedef unsigned char TF_Bool;
typedef struct TSL_Status TF_Status;
typedef struct TF_Tensor TF_Tensor;
typedef struct TF_KernelBuilder TF_KernelBuilder;
typedef struct TF_OpKernelConstruction TF_OpKernelConstruction;
typedef struct TF_OpKernelContext TF_OpKernelContext;
struct TF_OpDefinitionBuilder;
struct TF_DimensionHandle;
struct TF_ShapeHandle;
struct TF_ShapeInferenceContext;
#endif

// tf_status.h
TF_Status* TF_NewStatus(void);
void TF_DeleteStatus(TF_Status*);
void TF_SetStatus(TF_Status* s, TF_Code code, const char* msg);
TF_Code TF_GetCode(const TF_Status* s);
const char* TF_Message(const TF_Status* s);

// tf_tensor.h
void TF_DeleteTensor(TF_Tensor*);
TF_DataType TF_TensorType(const TF_Tensor*);
int TF_NumDims(const TF_Tensor*);
int64_t TF_Dim(const TF_Tensor* tensor, int dim_index);
void* TF_TensorData(const TF_Tensor*);

// kernels.h
TF_KernelBuilder* TF_NewKernelBuilder(const char* op_name, const char* device_name,
                                      void* (*create_func)(TF_OpKernelConstruction*),
                                      void (*compute_func)(void*, TF_OpKernelContext*), void (*delete_func)(void*));
void TF_RegisterKernelBuilder(const char* kernel_name, TF_KernelBuilder* builder, TF_Status* status);
int TF_NumInputs(TF_OpKernelContext* ctx);
void TF_GetInput(TF_OpKernelContext* ctx, int i, TF_Tensor** tensor, TF_Status* status);
void TF_OpKernelConstruction_Failure(TF_OpKernelConstruction* ctx, TF_Status* status);
void TF_OpKernelContext_Failure(TF_OpKernelContext* ctx, TF_Status* status);
void TF_OpKernelConstruction_GetAttrBool(TF_OpKernelConstruction* ctx, const char* attr_name, TF_Bool* val,
                                         TF_Status* status);
TF_Tensor* TF_AllocateOutput(TF_OpKernelContext* context, int index, TF_DataType dtype, const int64_t* dims,
                             int num_dims, size_t len, TF_Status* status);

// ops.h
TF_OpDefinitionBuilder* TF_NewOpDefinitionBuilder(const char* op_name);
void TF_RegisterOpDefinition(TF_OpDefinitionBuilder* builder, TF_Status* status);
void TF_OpDefinitionBuilderAddAttr(TF_OpDefinitionBuilder* builder, const char* attr_spec);
void TF_OpDefinitionBuilderAddInput(TF_OpDefinitionBuilder* builder, const char* input_spec);
void TF_OpDefinitionBuilderAddOutput(TF_OpDefinitionBuilder* builder, const char* output_spec);
void TF_OpDefinitionBuilderSetShapeInferenceFunction(TF_OpDefinitionBuilder* builder,
                                                     void (*shape_inference_func)(TF_ShapeInferenceContext* ctx,
                                                                                  TF_Status* status));
TF_ShapeHandle* TF_NewShapeHandle();
void TF_DeleteShapeHandle(TF_ShapeHandle* handle);
TF_DimensionHandle* TF_NewDimensionHandle();
void TF_DeleteDimensionHandle(TF_DimensionHandle* handle);
void TF_ShapeInferenceContextGetInput(TF_ShapeInferenceContext* ctx, int i, TF_ShapeHandle* handle, TF_Status* status);
void TF_ShapeInferenceContextSetOutput(TF_ShapeInferenceContext* ctx, int i, TF_ShapeHandle* handle,
                                       TF_Status* status);
TF_ShapeHandle* TF_ShapeInferenceContextVectorFromSize(TF_ShapeInferenceContext* ctx, size_t size);
int64_t TF_ShapeInferenceContextRank(TF_ShapeInferenceContext* ctx, TF_ShapeHandle* handle);
int TF_ShapeInferenceContextRankKnown(TF_ShapeInferenceContext* ctx, TF_ShapeHandle* handle);
void TF_ShapeInferenceContextDim(TF_ShapeInferenceContext* ctx, TF_ShapeHandle* shape_handle, int64_t i,
                                 TF_DimensionHandle* result);
int TF_DimensionHandleValueKnown(TF_DimensionHandle* dim_handle);
int64_t TF_DimensionHandleValue(TF_DimensionHandle* dim_handle);
void TF_ShapeInferenceContextSubshape(TF_ShapeInferenceContext* ctx, TF_ShapeHandle* shape_handle, int64_t start,
                                      int64_t end, TF_ShapeHandle* result, TF_Status* status);
void TF_ShapeInferenceContextConcatenateShapes(TF_ShapeInferenceContext* ctx, TF_ShapeHandle* first,
                                               TF_ShapeHandle* second, TF_ShapeHandle* result, TF_Status* status);
void TF_ShapeInferenceContextSetUnknownShape(TF_ShapeInferenceContext* ctx, TF_Status* status);

}  // extern "C"

#define KERAS_LTH_TF_FUNCTIONS(F)                     \
  F(TF_NewStatus)                                     \
  F(TF_DeleteStatus)                                  \
  F(TF_SetStatus)                                     \
  F(TF_GetCode)                                       \
  F(TF_Message)                                       \
  F(TF_DeleteTensor)                                  \
  F(TF_TensorType)                                    \
  F(TF_NumDims)                                       \
  F(TF_Dim)                                           \
  F(TF_TensorData)                                    \
  F(TF_NewKernelBuilder)                              \
  F(TF_RegisterKernelBuilder)                         \
  F(TF_NumInputs)                                     \
  F(TF_GetInput)                                      \
  F(TF_OpKernelConstruction_Failure)                  \
  F(TF_OpKernelContext_Failure)                       \
  F(TF_OpKernelConstruction_GetAttrBool)              \
  F(TF_AllocateOutput)                                \
  F(TF_NewOpDefinitionBuilder)                        \
  F(TF_RegisterOpDefinition)                          \
  F(TF_OpDefinitionBuilderAddAttr)                    \
  F(TF_OpDefinitionBuilderAddInput)                   \
  F(TF_OpDefinitionBuilderAddOutput)                  \
  F(TF_OpDefinitionBuilderSetShapeInferenceFunction)  \
  F(TF_NewShapeHandle)                                \
  F(TF_DeleteShapeHandle)                             \
  F(TF_NewDimensionHandle)                            \
  F(TF_DeleteDimensionHandle)                         \
  F(TF_ShapeInferenceContextGetInput)                 \
  F(TF_ShapeInferenceContextSetOutput)                \
  F(TF_ShapeInferenceContextVectorFromSize)           \
  F(TF_ShapeInferenceContextRank)                     \
  F(TF_ShapeInferenceContextRankKnown)                \
  F(TF_ShapeInferenceContextDim)                      \
  F(TF_DimensionHandleValueKnown)                     \
  F(TF_DimensionHandleValue)                          \
  F(TF_ShapeInferenceContextSubshape)                 \
  F(TF_ShapeInferenceContextConcatenateShapes)        \
  F(TF_ShapeInferenceContextSetUnknownShape)

namespace keras_lth::tf {

struct ApiTable {
#define KERAS_LTH_TF_MEMBER(name) decltype(&::name) name = nullptr;
  KERAS_LTH_TF_FUNCTIONS(KERAS_LTH_TF_MEMBER)
#undef KERAS_LTH_TF_MEMBER
};

// Finds every function in the process. Returns null, or the name of one that this TensorFlow does not have.
const char* FindApi();

// The functions; FindApi() must have returned null before.
const ApiTable& Api();

// The address of an exported symbol of TensorFlow, or null.
void* FindSymbol(const char* name);

// Part of TensorFlow's files and protocol, so they do not change.
inline constexpr auto kFloat32 = static_cast<TF_DataType>(1);
inline constexpr auto kBfloat16 = static_cast<TF_DataType>(14);
inline constexpr auto kUint16 = static_cast<TF_DataType>(17);
inline constexpr auto kOk = static_cast<TF_Code>(0);
inline constexpr auto kInvalidArgument = static_cast<TF_Code>(3);
inline constexpr auto kResourceExhausted = static_cast<TF_Code>(8);
inline constexpr auto kInternal = static_cast<TF_Code>(13);

}  // namespace keras_lth::tf

#endif  // KERAS_LTH_CC_TF_C_API_H_

#include "cc/tf/kernels.h"

#include <array>
#include <mutex>
#include <utility>
#include <vector>

#include "cc/isa/isa.h"
#include "cc/tf/handles.h"
#include "cc/threads/for_each.h"

namespace keras_lth::tf {

namespace {

class Kernel {
 public:
  Kernel(Op op, bool relu, isa::Level level) : op_(op), relu_(relu), level_(level) {}

  void Run(TF_OpKernelContext* context) {
    std::vector<Tensor> tensors;
    std::vector<View> arguments;
    const int count = Api().TF_NumInputs(context);
    tensors.reserve(static_cast<std::size_t>(count));
    arguments.reserve(static_cast<std::size_t>(count));
    const Status status = NewStatus();
    for (int i = 0; i < count; ++i) {
      tensors.push_back(InputOf(context, i, status.get()));
      const TF_Tensor* tensor = tensors.back().get();
      const auto type = Api().TF_TensorType(tensor);
      arguments.push_back({Api().TF_TensorData(tensor), DimsOf(tensor), type == kBfloat16 || type == kUint16});
    }
    const Problem problem = Prepare(op_, arguments, relu_);
    CheckOnce(problem, arguments[kGeometry].dims, context, status.get());
    const std::size_t bytes = OutputBytes(problem);
    const Tensor output(Api().TF_AllocateOutput(context, 0, kFloat32, problem.output.data(),
                                                static_cast<int>(problem.output.size()), bytes, status.get()));
    Ensure(status.get());
    if (bytes > 0) Compute(problem, level_, static_cast<float*>(Api().TF_TensorData(output.get())));
  }

 private:
  // Indices are read once, not at every step: the tensors that were found good are held, so that their memory can
  // neither be freed nor be written to (TensorFlow reuses buffers, and updates variables, in place only where nobody
  // else refers to them). The same addresses are then the same indices.
  void CheckOnce(const Problem& problem, const Dims& geometry, TF_OpKernelContext* context, TF_Status* status) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (Same(geometry, problem.structure)) return;
    }
    CheckIndices(problem.structure, sparse::Reads::kBoth);
    std::array<Tensor, kIndexArrays> good;
    for (std::size_t i = 0; i < kIndexArrays; ++i) {
      good[i] = InputOf(context, static_cast<int>(kIndices + i), status);
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    held_.swap(good);
    geometry_ = geometry;
    structure_ = problem.structure;
  }

  bool Same(const Dims& geometry, const sparse::Structure& structure) const {
    return geometry_ == geometry && structure_.room == structure.room &&
           structure_.by_col.starts == structure.by_col.starts && structure_.by_col.others == structure.by_col.others &&
           structure_.by_row.starts == structure.by_row.starts && structure_.by_row.others == structure.by_row.others &&
           structure_.by_row.places == structure.by_row.places;
  }

  const Op op_;
  const bool relu_;
  const isa::Level level_;
  std::mutex mutex_;
  std::array<Tensor, kIndexArrays> held_;
  Dims geometry_;
  sparse::Structure structure_{};
};

template <Op op>
void* Create(TF_OpKernelConstruction* construction) {
  const Status status = NewStatus();
  Kernel* kernel = nullptr;
  const bool created = Guard(status.get(), [&] {
    TF_Bool relu = 0;
    if (IsForward(op)) Api().TF_OpKernelConstruction_GetAttrBool(construction, "relu", &relu, status.get());
    Ensure(status.get());
    threads::Size();  // throws where KERAS_LTH_THREADS is not a number
    kernel = new Kernel(op, relu != 0, isa::Choose(""));
  });
  if (!created) Api().TF_OpKernelConstruction_Failure(construction, status.get());
  return kernel;
}

}  // namespace

CreateKernel CreateFor(Op op) {
  switch (op) {
    case Op::kMatmul:
      return &Create<Op::kMatmul>;
    case Op::kMatmulGradInput:
      return &Create<Op::kMatmulGradInput>;
    case Op::kMatmulGradValues:
      return &Create<Op::kMatmulGradValues>;
    case Op::kConv2d:
      return &Create<Op::kConv2d>;
    case Op::kConv2dGradInput:
      return &Create<Op::kConv2dGradInput>;
    case Op::kConv2dGradValues:
      return &Create<Op::kConv2dGradValues>;
  }
  return nullptr;
}

void ComputeKernel(void* kernel, TF_OpKernelContext* context) {
  const Status status = NewStatus();
  const bool done = Guard(status.get(), [&] { static_cast<Kernel*>(kernel)->Run(context); });
  if (!done) Api().TF_OpKernelContext_Failure(context, status.get());
}

void DeleteKernel(void* kernel) { delete static_cast<Kernel*>(kernel); }

}  // namespace keras_lth::tf

#include "cc/tf/normalize.h"

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "cc/isa/isa.h"
#include "cc/norm/norm.h"
#include "cc/tf/handles.h"
#include "cc/threads/for_each.h"

namespace keras_lth::tf {

namespace {

// The arguments of Normalize, by position; those of its gradient follow after dy, and then y where there is a residual.
enum Argument { kX, kMean, kInverse, kGamma, kBeta, kResidual };

std::int64_t Size(const Dims& dims) {
  std::int64_t size = 1;
  for (const std::int64_t dim : dims) size *= dim;
  return size;
}

// The inputs of a call as floats, and its outputs.
class Call {
 public:
  explicit Call(TF_OpKernelContext* context) : context_(context), status_(NewStatus()) {
    const int count = Api().TF_NumInputs(context);
    for (int i = 0; i < count; ++i) inputs_.push_back(InputOf(context, i, status_.get()));
  }

  int Count() const { return static_cast<int>(inputs_.size()); }
  Dims DimsAt(int i) const { return DimsOf(inputs_[static_cast<std::size_t>(i)].get()); }

  // Throws std::invalid_argument unless input i has this shape.
  const float* At(int i, const char* name, const Dims& wanted) const {
    if (DimsAt(i) != wanted) {
      throw std::invalid_argument(std::string(name) + " has shape " + Text(DimsAt(i)) + ", not " + Text(wanted));
    }
    return static_cast<const float*>(Api().TF_TensorData(inputs_[static_cast<std::size_t>(i)].get()));
  }

  float* Output(int i, const Dims& dims) {
    outputs_.emplace_back(Api().TF_AllocateOutput(context_, i, kFloat32, dims.data(), static_cast<int>(dims.size()),
                                                  sizeof(float) * static_cast<std::size_t>(Size(dims)), status_.get()));
    Ensure(status_.get());
    return static_cast<float*>(Api().TF_TensorData(outputs_.back().get()));
  }

 private:
  TF_OpKernelContext* context_;
  Status status_;
  std::vector<Tensor> inputs_, outputs_;
};

// Samples and channels of x [..., channels].
struct Shape2 {
  explicit Shape2(const Dims& x) : dims(x), channels(x.empty() ? 0 : x.back()) {
    if (x.empty() || channels < 1) throw std::invalid_argument("x has shape " + Text(x) + ": channels are needed");
    samples = Size(x) / channels;
  }
  Dims dims;
  std::int64_t channels, samples = 0;
  Dims OfChannels() const { return {channels}; }
};

class Kernel {
 public:
  using Run = void (*)(const Kernel&, Call*);
  Kernel(Run run, bool relu) : run_(run), relu_(relu), how_{isa::Choose("")} {}

  void Compute(TF_OpKernelContext* context) const {
    Call call(context);
    run_(*this, &call);
  }
  bool relu() const { return relu_; }
  const norm::Run& how() const { return how_; }

 private:
  Run run_;
  bool relu_;
  norm::Run how_;
};

void RunMoments(const Kernel& kernel, Call* call) {
  const Shape2 x(call->DimsAt(kX));
  float* const mean = call->Output(0, x.OfChannels());
  float* const variance = call->Output(1, x.OfChannels());
  norm::Moments(call->At(kX, "x", x.dims), x.samples, x.channels, mean, variance, kernel.how());
}

norm::Channels ChannelsOf(const Call& call, int first, const Shape2& x) {
  const auto at = [&](int argument, const char* name) { return call.At(first + argument, name, x.OfChannels()); };
  return {x.channels, at(kMean, "mean"), at(kInverse, "inverse"), at(kGamma, "gamma"), at(kBeta, "beta")};
}

void RunNormalize(const Kernel& kernel, Call* call) {
  const Shape2 x(call->DimsAt(kX));
  const float* const residual = call->Count() > kResidual ? call->At(kResidual, "residual", x.dims) : nullptr;
  const norm::Channels channels = ChannelsOf(*call, 0, x);
  norm::Normalize(call->At(kX, "x", x.dims), residual, x.samples, channels, kernel.relu(), call->Output(0, x.dims),
                  kernel.how());
}

void RunGradient(const Kernel& kernel, Call* call) {
  const Shape2 x(call->DimsAt(1 + kX));
  const float* const y = call->Count() > 1 + kResidual ? call->At(1 + kResidual, "y", x.dims) : nullptr;
  const norm::Channels channels = ChannelsOf(*call, 1, x);
  const float* const dy = call->At(0, "dy", x.dims);
  norm::Gradients gradients{};
  gradients.x = call->Output(0, x.dims);
  gradients.gamma = call->Output(1, x.OfChannels());
  gradients.beta = call->Output(2, x.OfChannels());
  gradients.residual = y == nullptr ? nullptr : call->Output(3, x.dims);
  norm::NormalizeGradient(dy, call->At(1 + kX, "x", x.dims), y, x.samples, channels, kernel.relu(), gradients,
                          kernel.how());
}

void RunMaskedSums(const Kernel& kernel, Call* call) {
  const Shape2 y(call->DimsAt(1));
  const float* const dy = call->At(0, "dy", y.dims);
  float* const masked = call->Output(0, y.dims);
  float* const sums = call->Output(1, y.OfChannels());
  norm::MaskedSums(dy, call->At(1, "y", y.dims), y.samples, y.channels, masked, sums, kernel.how());
}

// Pixels of a window along an axis; throws where windows do not lie side by side.
std::int64_t Side(const Dims& x, const Dims& dy, std::size_t axis) {
  if (dy[axis] > 0 && x[axis] % dy[axis] == 0) return x[axis] / dy[axis];
  throw std::invalid_argument("x has shape " + Text(x) + ", and dy " + Text(dy) + ": windows side by side are needed");
}

void RunMaxPoolGradient(const Kernel& kernel, Call* call) {
  const Dims x = call->DimsAt(0), dy = call->DimsAt(1);
  if (x.size() != 4 || dy.size() != 4 || x[0] != dy[0] || x[3] != dy[3]) {
    throw std::invalid_argument("x has shape " + Text(x) + ", and dy " + Text(dy) +
                                ": both are [batch, height, width, channels]");
  }
  float* const dx = call->Output(0, x);
  if (Size(x) == 0) return;
  const norm::Windows windows{x[0], dy[1], dy[2], Side(x, dy, 1), Side(x, dy, 2), x[3]};
  norm::MaxPoolGradient(call->At(0, "x", x), call->At(1, "dy", dy), windows, dx, kernel.how());
}

template <Kernel::Run run, bool has_relu>
void* Create(TF_OpKernelConstruction* construction) {
  const Status status = NewStatus();
  Kernel* kernel = nullptr;
  const bool created = Guard(status.get(), [&] {
    TF_Bool relu = 0;
    if (has_relu) Api().TF_OpKernelConstruction_GetAttrBool(construction, "relu", &relu, status.get());
    Ensure(status.get());
    threads::Size();  // throws where KERAS_LTH_THREADS is not a number
    kernel = new Kernel(run, relu != 0);
  });
  if (!created) Api().TF_OpKernelConstruction_Failure(construction, status.get());
  return kernel;
}

void ComputeKernel(void* kernel, TF_OpKernelContext* context) {
  const Status status = NewStatus();
  const bool done = Guard(status.get(), [&] { static_cast<Kernel*>(kernel)->Compute(context); });
  if (!done) Api().TF_OpKernelContext_Failure(context, status.get());
}

void DeleteKernel(void* kernel) { delete static_cast<Kernel*>(kernel); }

// Gives output i the shape of an input, where it is known.
void CopyShape(TF_ShapeInferenceContext* context, int input, int output, TF_Status* status) {
  const Shape shape(Api().TF_NewShapeHandle());
  Api().TF_ShapeInferenceContextGetInput(context, input, shape.get(), status);
  Ensure(status);
  Api().TF_ShapeInferenceContextSetOutput(context, output, shape.get(), status);
  Ensure(status);
}

// Gives an output the last axis of an input, where it is known.
void LastAxis(TF_ShapeInferenceContext* context, int input, int output, TF_Status* status) {
  const Shape x(Api().TF_NewShapeHandle());
  Api().TF_ShapeInferenceContextGetInput(context, input, x.get(), status);
  Ensure(status);
  const std::int64_t rank = Api().TF_ShapeInferenceContextRank(context, x.get());
  if (Api().TF_ShapeInferenceContextRankKnown(context, x.get()) == 0 || rank < 1) return;
  const Shape last(Api().TF_NewShapeHandle());
  Api().TF_ShapeInferenceContextSubshape(context, x.get(), rank - 1, rank, last.get(), status);
  Ensure(status);
  Api().TF_ShapeInferenceContextSetOutput(context, output, last.get(), status);
  Ensure(status);
}

void MomentsShape(TF_ShapeInferenceContext* context, TF_Status* status) {
  Guard(status, [&] {
    Api().TF_ShapeInferenceContextSetUnknownShape(context, status);
    for (const int output : {0, 1}) LastAxis(context, kX, output, status);
  });
}

void MaskedSumsShape(TF_ShapeInferenceContext* context, TF_Status* status) {
  Guard(status, [&] {
    Api().TF_ShapeInferenceContextSetUnknownShape(context, status);
    CopyShape(context, 1, 0, status);
    LastAxis(context, 1, 1, status);
  });
}

void NormalizeShape(TF_ShapeInferenceContext* context, TF_Status* status) {
  Guard(status, [&] { CopyShape(context, kX, 0, status); });
}

template <int outputs>
void GradientShape(TF_ShapeInferenceContext* context, TF_Status* status) {
  Guard(status, [&] {
    CopyShape(context, 1 + kX, 0, status);
    CopyShape(context, 1 + kGamma, 1, status);
    CopyShape(context, 1 + kBeta, 2, status);
    if (outputs > 3) CopyShape(context, 1 + kX, 3, status);
  });
}

using Infer = void (*)(TF_ShapeInferenceContext*, TF_Status*);

void Register(const char* name, const std::vector<const char*>& attributes, const std::vector<const char*>& inputs,
              const std::vector<const char*>& outputs, Infer infer, void* (*create)(TF_OpKernelConstruction*)) {
  TF_OpDefinitionBuilder* definition = Api().TF_NewOpDefinitionBuilder(name);
  for (const char* attribute : attributes) Api().TF_OpDefinitionBuilderAddAttr(definition, attribute);
  for (const char* input : inputs) Api().TF_OpDefinitionBuilderAddInput(definition, input);
  for (const char* output : outputs) Api().TF_OpDefinitionBuilderAddOutput(definition, output);
  Api().TF_OpDefinitionBuilderSetShapeInferenceFunction(definition, infer);
  const Status status = NewStatus();
  Api().TF_RegisterOpDefinition(definition, status.get());
  Ensure(status.get());
  Api().TF_RegisterKernelBuilder(name, Api().TF_NewKernelBuilder(name, "CPU", create, &ComputeKernel, &DeleteKernel),
                                 status.get());
  Ensure(status.get());
}

}  // namespace

void RegisterNormalize() {
  const char* const relu = "relu: bool = false";
  Register("KerasLthMoments", {}, {"x: float"}, {"mean: float", "variance: float"}, &MomentsShape,
           &Create<&RunMoments, false>);
  Register("KerasLthNormalize", {relu, "residuals: int >= 0"},
           {"x: float", "mean: float", "inverse: float", "gamma: float", "beta: float", "residual: residuals * float"},
           {"y: float"}, &NormalizeShape, &Create<&RunNormalize, true>);
  Register("KerasLthMaskedSums", {}, {"dy: float", "y: float"}, {"masked: float", "sums: float"}, &MaskedSumsShape,
           &Create<&RunMaskedSums, false>);
  Register("KerasLthMaxPoolGrad", {}, {"x: float", "dy: float"}, {"dx: float"}, &NormalizeShape,
           &Create<&RunMaxPoolGradient, false>);
  const std::vector<const char*> given = {"dy: float",      "x: float",     "mean: float",
                                          "inverse: float", "gamma: float", "beta: float"};
  const std::vector<const char*> made = {"dx: float", "dgamma: float", "dbeta: float"};
  Register("KerasLthNormalizeGrad", {relu}, given, made, &GradientShape<3>, &Create<&RunGradient, true>);
  std::vector<const char*> with_y = given, with_residual = made;
  with_y.push_back("y: float");
  with_residual.push_back("dresidual: float");
  Register("KerasLthNormalizeAddGrad", {relu}, with_y, with_residual, &GradientShape<4>, &Create<&RunGradient, true>);
}

}  // namespace keras_lth::tf

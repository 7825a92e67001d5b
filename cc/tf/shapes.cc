// Shape functions: what is known of the arguments when a graph is made decides what is known of the result.
#include <cstdint>
#include <string>

#include "cc/tf/handles.h"
#include "cc/tf/kernels.h"

namespace keras_lth::tf {

namespace {

constexpr std::int64_t kUnknown = -1;

// A shape of known rank, with kUnknown among its dims.
class Context {
 public:
  Context(TF_ShapeInferenceContext* context, TF_Status* status) : context_(context), status_(status) {}

  Shape Input(std::size_t i) const {
    Shape shape(Api().TF_NewShapeHandle());
    Api().TF_ShapeInferenceContextGetInput(context_, static_cast<int>(i), shape.get(), status_);
    Ensure(status_);
    return shape;
  }

  bool Known(const Shape& shape) const {
    return Api().TF_ShapeInferenceContextRankKnown(context_, shape.get()) != 0;
  }

  Dims DimsOf(const Shape& shape) const {
    Dims dims;
    const std::int64_t rank = Api().TF_ShapeInferenceContextRank(context_, shape.get());
    const std::unique_ptr<TF_DimensionHandle, Delete> dim(Api().TF_NewDimensionHandle());
    for (std::int64_t i = 0; i < rank; ++i) {
      Api().TF_ShapeInferenceContextDim(context_, shape.get(), i, dim.get());
      dims.push_back(Api().TF_DimensionHandleValueKnown(dim.get()) ? Api().TF_DimensionHandleValue(dim.get())
                                                                   : kUnknown);
    }
    return dims;
  }

  // The dims of `shape` from `begin` to `end`, known or not: what is unknown stays the same unknown.
  Shape Part(const Shape& shape, std::int64_t begin, std::int64_t end) const {
    Shape part(Api().TF_NewShapeHandle());
    Api().TF_ShapeInferenceContextSubshape(context_, shape.get(), begin, end, part.get(), status_);
    Ensure(status_);
    return part;
  }

  // `shape` and one more dim; kUnknown is the C++ API's own mark of a new unknown.
  Shape And(const Shape& shape, std::int64_t dim) const {
    const Shape last(Api().TF_ShapeInferenceContextVectorFromSize(context_, static_cast<std::size_t>(dim)));
    Shape both(Api().TF_NewShapeHandle());
    Api().TF_ShapeInferenceContextConcatenateShapes(context_, shape.get(), last.get(), both.get(), status_);
    Ensure(status_);
    return both;
  }

  void SetOutput(const Shape& shape) const {
    Api().TF_ShapeInferenceContextSetOutput(context_, 0, shape.get(), status_);
    Ensure(status_);
  }

  void SetUnknown() const {
    Api().TF_ShapeInferenceContextSetUnknownShape(context_, status_);
    Ensure(status_);
  }

 private:
  TF_ShapeInferenceContext* context_;
  TF_Status* status_;
};

// The geometry, where a graph does not hide it (it is a constant, or a captured one).
bool FindGeometry(const Context& context, bool conv, Geometry* geometry) {
  const Shape shape = context.Input(kGeometry);
  if (!context.Known(shape)) return false;
  const Dims dims = context.DimsOf(shape);
  for (const std::int64_t dim : dims) {
    if (dim == kUnknown) return false;
  }
  *geometry = Geometry::Parse(dims, conv);
  return true;
}

void CheckDims(const std::string& name, const Dims& dims, bool conv, std::int64_t last) {
  const bool rank = conv ? dims.size() == 4 : !dims.empty();
  if (rank && (dims.back() == kUnknown || dims.back() == last)) return;
  Dims seen = dims;
  throw std::invalid_argument(name + " has shape " + Text(seen) + " (-1: unknown); the structure needs [" +
                              (conv ? "batch,height,width," : "...,") + std::to_string(last) + "]");
}

Shape Values(const Context& context, const Geometry& geometry) {
  const Shape others = context.Input(kIndices + 1);
  const Shape none = context.Part(context.Input(kGeometry), 0, 0);
  const bool known = context.Known(others) && context.DimsOf(others).size() == 1;
  return context.And(context.And(context.And(none, known ? context.DimsOf(others)[0] : kUnknown), geometry.block_rows),
                     geometry.block_cols);
}

void Infer(Op op, const Context& context) {
  const bool conv = IsConv(op);
  const bool grad_input = op == Op::kMatmulGradInput || op == Op::kConv2dGradInput;
  Geometry geometry{};
  if (!FindGeometry(context, conv, &geometry)) return context.SetUnknown();
  if (op == Op::kMatmulGradValues || op == Op::kConv2dGradValues) return context.SetOutput(Values(context, geometry));
  if (op == Op::kConv2dGradInput) return context.SetOutput(context.Input(kExtra));
  const Shape first = context.Input(0);
  if (!context.Known(first)) return context.SetUnknown();
  const Dims dims = context.DimsOf(first);
  CheckDims(grad_input ? "dy" : "x", dims, conv, grad_input ? geometry.cols : geometry.rows);
  if (!conv) {
    const Shape leading = context.Part(first, 0, static_cast<std::int64_t>(dims.size()) - 1);
    return context.SetOutput(context.And(leading, grad_input ? geometry.rows : geometry.cols));
  }
  // An unknown size stands in as one that is large enough.
  const std::int64_t height = dims[1] == kUnknown ? geometry.kernel_height : dims[1];
  const std::int64_t width = dims[2] == kUnknown ? geometry.kernel_width : dims[2];
  const sparse::ConvShape shape = geometry.Convolution(1, height, width);
  Shape out = context.Part(first, 0, 1);
  out = context.And(out, dims[1] == kUnknown ? kUnknown : shape.OutHeight());
  out = context.And(out, dims[2] == kUnknown ? kUnknown : shape.OutWidth());
  context.SetOutput(context.And(out, geometry.cols));
}

template <Op op>
void InferShape(TF_ShapeInferenceContext* context, TF_Status* status) {
  Guard(status, [&] { Infer(op, Context(context, status)); });
}

}  // namespace

ShapeFunction ShapeFor(Op op) {
  switch (op) {
    case Op::kMatmul:
      return &InferShape<Op::kMatmul>;
    case Op::kMatmulGradInput:
      return &InferShape<Op::kMatmulGradInput>;
    case Op::kMatmulGradValues:
      return &InferShape<Op::kMatmulGradValues>;
    case Op::kConv2d:
      return &InferShape<Op::kConv2d>;
    case Op::kConv2dGradInput:
      return &InferShape<Op::kConv2dGradInput>;
    case Op::kConv2dGradValues:
      return &InferShape<Op::kConv2dGradValues>;
  }
  return nullptr;
}

}  // namespace keras_lth::tf

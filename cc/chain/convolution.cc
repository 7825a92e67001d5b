#include "cc/chain/convolution.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

#include "cc/sparse/kernels.h"

namespace keras_lth::chain {

namespace {

constexpr std::int64_t kChannels = 64;  // of a task that packs
constexpr std::int64_t kPacked = 8;     // vectors of it
constexpr std::int64_t kOutputs = 16;   // of a task that multiplies, about
constexpr std::int64_t kTasks = 8;      // at least, where there are so many runs

std::int64_t Quotient(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// The first item of share i of n items.
std::int64_t Share(std::int64_t n, std::int64_t shares, std::int64_t i) { return n * i / shares; }

}  // namespace

Convolution::Convolution(const sparse::Structure& structure, const float* values, const Images& in,
                         const Window& window, const Images& out, const float* x, const sparse::Epilogue& epilogue,
                         float* y, isa::Level level)
    : kernels_(KernelsFor(level)),
      moves_(*sparse::KernelsFor(level).convolution),
      in_(in),
      out_(out),
      x_(x),
      y_(y),
      relu_(epilogue.relu),
      phases_y_(std::min(window.stride_y, window.height)),
      phases_x_(std::min(window.stride_x, window.width)),
      rows_(Quotient((out.height - 1) * window.stride_y + window.height, window.stride_y)),
      pitch_(Quotient((out.width - 1) * window.stride_x + window.width, window.stride_x)),
      plane_(Quotient(phases_y_ * phases_x_ * rows_ * pitch_, moves_.lanes) * moves_.lanes),
      groups_(structure.ColGroups()),
      width_(structure.block_cols),
      together_(std::max<std::int64_t>(1, kOutputs / width_)),
      zeros_(static_cast<std::size_t>(in.channels), 0.0F) {
  if (structure.taps != window.height * window.width || structure.rows != in.channels ||
      structure.cols != out.channels || in.batch != out.batch) {
    throw std::invalid_argument("a structure of " + std::to_string(structure.taps) + " taps, " +
                                std::to_string(structure.rows) + " -> " + std::to_string(structure.cols) +
                                " channels does not fit the images and the window");
  }
  if (plane_ * in.channels > std::numeric_limits<std::uint32_t>::max() ||
      std::max(in.height * in.width, out.height * out.width) > std::numeric_limits<std::int32_t>::max()) {
    throw std::invalid_argument("the images are too large for a chain");
  }
  if (epilogue.bias != nullptr) {
    bias_.assign(epilogue.bias, epilogue.bias + structure.cols);
    bias_.resize(static_cast<std::size_t>(groups_ * width_), 0.0F);
  }
  FindPixels(window);
  FindEntries(structure, values, window);
  const std::int64_t size = in.batch * in.channels * plane_;
  packed_ = std::make_unique<sparse::Scratch>(size + moves_.lanes);  // the last run ends behind its plane
  std::fill(packed_->data(), packed_->data() + size + moves_.lanes, 0.0F);
  const std::int64_t tasks = in.batch * Quotient(groups_, together_);
  const std::int64_t runs =
      Quotient(static_cast<std::int64_t>(targets_.size()) / moves_.lanes, sparse::kMostVectors);
  pieces_ = std::clamp<std::int64_t>(Quotient(kTasks, std::max<std::int64_t>(tasks, 1)), 1, runs);
}

void Convolution::FindPixels(const Window& window) {
  sources_.assign(static_cast<std::size_t>(plane_), -1);
  std::size_t at = 0;
  for (std::int64_t phase_y = 0; phase_y < phases_y_; ++phase_y) {
    for (std::int64_t phase_x = 0; phase_x < phases_x_; ++phase_x) {
      for (std::int64_t row = 0; row < rows_; ++row) {
        for (std::int64_t col = 0; col < pitch_; ++col, ++at) {
          const std::int64_t y = row * window.stride_y + phase_y - window.top;
          const std::int64_t x = col * window.stride_x + phase_x - window.left;
          if (y < 0 || y >= in_.height || x < 0 || x >= in_.width) continue;
          sources_[at] = static_cast<std::int32_t>(y * in_.width + x);
        }
      }
    }
  }
  const std::int64_t run = (out_.height - 1) * pitch_ + out_.width;
  targets_.assign(static_cast<std::size_t>(Quotient(run, moves_.lanes) * moves_.lanes), -1);
  for (std::int64_t y = 0; y < out_.height; ++y) {
    for (std::int64_t x = 0; x < out_.width; ++x) {
      targets_[static_cast<std::size_t>(y * pitch_ + x)] = static_cast<std::int32_t>(y * out_.width + x);
    }
  }
}

void Convolution::FindEntries(const sparse::Structure& s, const float* values, const Window& window) {
  starts_.push_back(0);
  for (std::int64_t g = 0; g < groups_; ++g) {
    for (std::int64_t e = s.by_col.starts[g]; e < s.by_col.starts[g + 1]; ++e) {
      const std::int64_t tap = s.by_col.others[e] / s.RowGroups(), first = s.by_col.others[e] % s.RowGroups();
      const std::int64_t dy = tap / window.width, dx = tap % window.width;
      const std::int64_t phase = dy % window.stride_y * phases_x_ + dx % window.stride_x;
      const std::int64_t pixel = (phase * rows_ + dy / window.stride_y) * pitch_ + dx / window.stride_x;
      for (std::int64_t i = 0; i < s.block_rows && first * s.block_rows + i < s.rows; ++i) {
        offsets_.push_back(static_cast<std::uint32_t>((first * s.block_rows + i) * plane_ + pixel));
        const float* row = values + (e * s.block_rows + i) * width_;
        weights_.insert(weights_.end(), row, row + width_);
      }
    }
    starts_.push_back(static_cast<std::int64_t>(offsets_.size()));
  }
}

double Convolution::Multiplications() const {
  return static_cast<double>(weights_.size()) * static_cast<double>(in_.batch) * static_cast<double>(targets_.size());
}

std::int64_t Convolution::PackTasks() const {
  return in_.batch * Quotient(in_.channels, kChannels) * Quotient(plane_ / moves_.lanes, kPacked);
}

void Convolution::Pack(std::int64_t task) const {
  const std::int64_t parts = Quotient(in_.channels, kChannels), vectors = plane_ / moves_.lanes;
  const std::int64_t cuts = Quotient(vectors, kPacked), image = task / (parts * cuts);
  const std::int64_t first = task / cuts % parts * kChannels, count = std::min(kChannels, in_.channels - first);
  const float* const pixels = x_ + image * in_.height * in_.width * in_.channels;
  float* const out = packed_->data() + (image * in_.channels + first) * plane_;
  for (std::int64_t v = task % cuts * kPacked; v < std::min(vectors, (task % cuts + 1) * kPacked); ++v) {
    const float* lanes[sparse::kMostLanes];
    for (std::int64_t l = 0; l < moves_.lanes; ++l) {
      const std::int32_t source = sources_[static_cast<std::size_t>(v * moves_.lanes + l)];
      lanes[l] = source < 0 ? zeros_.data() : pixels + source * in_.channels + first;
    }
    moves_.pack(lanes, count, out + v * moves_.lanes, plane_);
  }
}

std::int64_t Convolution::MultiplyTasks() const { return in_.batch * Quotient(groups_, together_) * pieces_; }

void Convolution::Multiply(std::int64_t task) const {
  const std::int64_t parts = Quotient(groups_, together_), image = task / (parts * pieces_);
  const std::int64_t begin = task / pieces_ % parts * together_, end = std::min(groups_, begin + together_);
  const std::int64_t first = begin * width_, count = std::min(out_.channels, end * width_) - first;
  const std::int64_t vectors = static_cast<std::int64_t>(targets_.size()) / moves_.lanes;
  const std::int64_t runs = Quotient(vectors, sparse::kMostVectors), piece = task % pieces_;
  const sparse::Panel panel{end - begin, width_, starts_.data() + begin, offsets_.data(), weights_.data()};
  const float* const in = packed_->data() + image * in_.channels * plane_;
  const float* const bias = bias_.empty() ? nullptr : bias_.data() + first;
  float* const pixels = y_ + image * out_.height * out_.width * out_.channels + first;
  const sparse::Scratch sums(together_ * width_ * sparse::kMostVectors * moves_.lanes);
  for (std::int64_t run = Share(runs, pieces_, piece); run < Share(runs, pieces_, piece + 1); ++run) {
    const std::int64_t at = Share(vectors, runs, run), length = Share(vectors, runs, run + 1) - at;
    if (width_ == 1) {
      kernels_.multiply(panel, in + at * moves_.lanes, length, bias, sums.data());
    } else {
      moves_.multiply(panel, in + at * moves_.lanes, length, false, bias, sums.data());
    }
    for (std::int64_t v = 0; v < length; ++v) {
      float* lanes[sparse::kMostLanes];
      for (std::int64_t l = 0; l < moves_.lanes; ++l) {
        const std::int32_t target = targets_[static_cast<std::size_t>((at + v) * moves_.lanes + l)];
        lanes[l] = target < 0 ? nullptr : pixels + target * out_.channels;
      }
      moves_.unpack(sums.data() + v * moves_.lanes, length * moves_.lanes, count, relu_, lanes);
    }
  }
}

}  // namespace keras_lth::chain

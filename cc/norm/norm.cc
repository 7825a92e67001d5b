#include "cc/norm/norm.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "cc/norm/kernels.h"
#include "cc/threads/for_each.h"

namespace keras_lth::norm {

namespace {

constexpr std::int64_t kWidth = 64;                         // floats of an array of channels, at least
constexpr std::int64_t kRun = std::int64_t{1} << 14;        // floats of a run, about
constexpr std::int64_t kWorthAThread = std::int64_t{1} << 16;  // floats

using Floats = std::vector<float>;

// Samples cut into runs that do not depend on the threads.
class Runs {
 public:
  Runs(std::int64_t samples, std::int64_t channels, const Run& run)
      : floats_(samples * channels), channels_(channels), repeats_((kWidth + channels - 1) / channels) {
    length_ = std::max<std::int64_t>(1, kRun / Width()) * Width();
    threads_ = run.threads != 0 ? run.threads : floats_ < kWorthAThread ? 1 : threads::Size();
  }

  std::int64_t Width() const { return channels_ * repeats_; }
  std::int64_t Count() const { return (floats_ + length_ - 1) / length_; }

  // Numbers of the channels as arrays of Width().
  Floats Repeated(const float* numbers) const {
    Floats result;
    for (std::int64_t i = 0; i < repeats_; ++i) result.insert(result.end(), numbers, numbers + channels_);
    return result;
  }

  // Calls body(run, first float, floats); backwards after a pass over the same floats, whose last ones are in the caches.
  template <class Body>
  void ForEach(bool backwards, const Body& body) const {
    threads::ForEach(threads_, static_cast<std::size_t>(Count()), [&](unsigned, std::size_t item) {
      const auto at = static_cast<std::int64_t>(item), run = backwards ? Count() - 1 - at : at, first = run * length_;
      body(run, first, std::min(length_, floats_ - first));
    });
  }

  // Two sums for each channel, added up from those of body(first, floats, sums, sums), which begin at 0.
  template <class Body>
  std::vector<double> Sums(const Body& body) const {
    const std::int64_t width = Width();
    Floats sums(static_cast<std::size_t>(2 * width * Count()), 0.0F);
    ForEach(false, [&](std::int64_t run, std::int64_t first, std::int64_t n) {
      float* const of_run = sums.data() + 2 * width * run;
      body(first, n, of_run, of_run + width);
    });
    std::vector<double> total(static_cast<std::size_t>(2 * channels_), 0.0);
    for (std::int64_t half = 0; half < 2 * Count(); ++half) {
      double* const to = total.data() + half % 2 * channels_;
      for (std::int64_t j = 0; j < width; ++j) to[j % channels_] += sums[static_cast<std::size_t>(half * width + j)];
    }
    return total;
  }

 private:
  std::int64_t floats_, channels_, repeats_, length_;
  unsigned threads_;
};

// The channels' numbers as the kernels want them.
struct Repeated {
  Repeated(const Runs& runs, const Channels& c) : mean(runs.Repeated(c.mean)), shift(runs.Repeated(c.beta)) {
    Floats product(c.gamma, c.gamma + c.count);
    for (std::int64_t i = 0; i < c.count; ++i) product[static_cast<std::size_t>(i)] *= c.inverse[i];
    scale = runs.Repeated(product.data());
  }
  Affine View() const { return {mean.data(), scale.data(), shift.data()}; }

  Floats mean, scale, shift;
};

}  // namespace

void Moments(const float* x, std::int64_t samples, std::int64_t channels, float* mean, float* variance,
             const Run& run) {
  if (channels == 0) return;
  const Kernels& kernels = KernelsFor(run.level);
  const Runs runs(samples, channels, run);
  // Around the first sample: sums of squares around 0 would lose a variance that is small beside the mean.
  const Floats zeros(static_cast<std::size_t>(channels), 0.0F);
  const float* const origin = samples == 0 ? zeros.data() : x;
  const Floats repeated = runs.Repeated(origin);
  const std::vector<double> sums = runs.Sums([&](std::int64_t first, std::int64_t n, float* of_x, float* squares) {
    kernels.moments(x + first, n, runs.Width(), repeated.data(), of_x, squares);
  });
  for (std::int64_t c = 0; c < channels; ++c) {
    const auto count = static_cast<double>(samples), from = static_cast<double>(origin[c]);
    const double shift = sums[static_cast<std::size_t>(c)] / count;
    const double square = sums[static_cast<std::size_t>(channels + c)] / count - shift * shift;
    mean[c] = static_cast<float>(from + shift);
    variance[c] = static_cast<float>(square < 0 ? 0.0 : square);
  }
}

void Normalize(const float* x, const float* residual, std::int64_t samples, const Channels& channels, bool relu,
               float* y, const Run& run) {
  if (channels.count == 0) return;
  const Kernels& kernels = KernelsFor(run.level);
  const Runs runs(samples, channels.count, run);
  const Repeated repeated(runs, channels);
  runs.ForEach(true, [&](std::int64_t, std::int64_t first, std::int64_t n) {
    kernels.apply(x + first, residual == nullptr ? nullptr : residual + first, n, runs.Width(), repeated.View(), relu,
                  y + first);
  });
}

void NormalizeGradient(const float* dy, const float* x, const float* y, std::int64_t samples, const Channels& channels,
                       bool relu, const Gradients& gradients, const Run& run) {
  if (channels.count == 0) return;
  const Kernels& kernels = KernelsFor(run.level);
  const Runs runs(samples, channels.count, run);
  const Repeated repeated(runs, channels);
  float* const masked = gradients.residual;
  const Mask mask = !relu ? Mask::kNone : masked == nullptr ? Mask::kAffine : Mask::kResult;
  const std::vector<double> sums = runs.Sums([&](std::int64_t first, std::int64_t n, float* of_g, float* products) {
    kernels.reduce(dy + first, x + first, mask == Mask::kResult ? y + first : nullptr, mask, n, runs.Width(),
                   repeated.View(), masked == nullptr ? nullptr : masked + first, of_g, products);
  });
  Floats constant(static_cast<std::size_t>(channels.count)), slope(constant.size());
  for (std::size_t c = 0; c < constant.size(); ++c) {
    const auto inverse = static_cast<double>(channels.inverse[c]), count = static_cast<double>(samples);
    const double of_g = sums[c], product = sums[constant.size() + c] * inverse;
    gradients.beta[c] = static_cast<float>(of_g);
    gradients.gamma[c] = static_cast<float>(product);
    constant[c] = static_cast<float>(of_g / count);
    slope[c] = static_cast<float>(product * inverse / count);
  }
  const Floats constants = runs.Repeated(constant.data()), slopes = runs.Repeated(slope.data());
  runs.ForEach(true, [&](std::int64_t, std::int64_t first, std::int64_t n) {
    // What the first pass has masked need not be masked again.
    kernels.input(masked == nullptr ? dy + first : masked + first, x + first,
                  mask == Mask::kAffine ? mask : Mask::kNone, n, runs.Width(), repeated.View(), constants.data(),
                  slopes.data(), gradients.x + first);
  });
}

void MaskedSums(const float* dy, const float* y, std::int64_t samples, std::int64_t channels, float* masked,
                float* sums, const Run& run) {
  if (channels == 0) return;
  const Kernels& kernels = KernelsFor(run.level);
  const Runs runs(samples, channels, run);
  const Floats zeros(static_cast<std::size_t>(runs.Width()), 0.0F);
  const Affine none{zeros.data(), zeros.data(), zeros.data()};
  const std::vector<double> both = runs.Sums([&](std::int64_t first, std::int64_t n, float* of_g, float* products) {
    kernels.reduce(dy + first, y + first, y + first, Mask::kResult, n, runs.Width(), none, masked + first, of_g,
                   products);
  });
  for (std::int64_t c = 0; c < channels; ++c) sums[c] = static_cast<float>(both[static_cast<std::size_t>(c)]);
}

void MaxPoolGradient(const float* x, const float* dy, const Windows& w, float* dx, const Run& run) {
  const Kernels& kernels = KernelsFor(run.level);
  const std::int64_t line = w.columns * w.channels;  // of dy
  const auto lines = static_cast<std::size_t>(w.batch * w.rows);
  const double floats = static_cast<double>(w.batch * w.rows * line) * static_cast<double>(w.height * w.width);
  const unsigned threads = run.threads != 0 ? run.threads : floats < kWorthAThread ? 1 : threads::Size();
  threads::ForEach(threads, lines, [&](unsigned, std::size_t item) {
    const auto at = static_cast<std::int64_t>(item);
    Floats left(dy + at * line, dy + (at + 1) * line), largest(static_cast<std::size_t>(w.channels));
    for (std::int64_t i = 0; i < w.columns; ++i) {
      const auto pixel = [&](std::int64_t k) {
        const std::int64_t row = at * w.height + k / w.width, column = i * w.width + k % w.width;
        return (row * w.columns * w.width + column) * w.channels;
      };
      std::copy_n(x + pixel(0), w.channels, largest.data());
      for (std::int64_t k = 1; k < w.height * w.width; ++k) kernels.enlarge(x + pixel(k), w.channels, largest.data());
      for (std::int64_t k = 0; k < w.height * w.width; ++k) {
        kernels.give(x + pixel(k), largest.data(), w.channels, left.data() + i * w.channels, dx + pixel(k));
      }
    }
  });
}

}  // namespace keras_lth::norm

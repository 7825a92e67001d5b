// Normalisation, its statistics and its gradients against loops in double precision.
#include "cc/norm/norm.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "cc/fuzz/fuzz.h"
#include "cc/fuzz/pattern.h"

namespace keras_lth::fuzz {

namespace {

std::size_t At(std::int64_t i) { return static_cast<std::size_t>(i); }

using Array = std::vector<float>;

struct Results {
  Array mean, variance, y, dx, dgamma, dbeta, dresidual;
};

// A double and the roundings on the way to it.
Expected Value(double value, double magnitude, std::int64_t terms) { return {value, magnitude, terms}; }

}  // namespace

Outcome Normalization(Bytes* bytes) {
  const std::int64_t channels = bytes->OneOf<std::int64_t>({3, 1, 16, 64, 65, 7});
  const std::int64_t samples = bytes->Between(0, bytes->OneOf({9, 100, 3000}));
  const std::int64_t size = samples * channels;
  const bool relu = bytes->Chance(128), add = bytes->Chance(128);
  const isa::Level level = Level(bytes);
  const unsigned threads[] = {Workers(bytes), Workers(bytes)};
  const Array x = Floats(bytes, size, true), dy = Floats(bytes, size, true), residual = Floats(bytes, add ? size : 0, true);
  // Any numbers of the channels: not those of x.
  const Array mean = Floats(bytes, channels, true), inverse = Floats(bytes, channels, true);
  const Array gamma = Floats(bytes, channels, true), beta = Floats(bytes, channels, true);
  const norm::Channels of{channels, mean.data(), inverse.data(), gamma.data(), beta.data()};
  std::vector<Results> all;
  for (const unsigned some : threads) {
    const norm::Run run{level, some};
    const Array channel(At(channels), 12345.0F), whole(At(size), 12345.0F);
    Results r{channel, channel, whole, whole, channel, channel, add ? whole : Array()};
    norm::Moments(x.data(), samples, channels, r.mean.data(), r.variance.data(), run);
    norm::Normalize(x.data(), add ? residual.data() : nullptr, samples, of, relu, r.y.data(), run);
    norm::NormalizeGradient(dy.data(), x.data(), add ? r.y.data() : nullptr, samples, of, relu,
                            {r.dx.data(), r.dgamma.data(), r.dbeta.data(), add ? r.dresidual.data() : nullptr}, run);
    all.push_back(r);
  }
  const std::string name = "normalisation of " + std::to_string(samples) + " x " + std::to_string(channels) +
                           (add ? ", added" : "") + (relu ? ", relu, " : ", ") + isa::Name(level);
  const auto same = [&](Array Results::*part) { ExpectSame(all[0].*part, all[1].*part, name); };
  same(&Results::mean), same(&Results::variance), same(&Results::y), same(&Results::dx), same(&Results::dgamma);
  same(&Results::dbeta), same(&Results::dresidual);
  if (samples == 0) return Outcome::kDone;
  const Results& r = all[0];
  const auto n = static_cast<double>(samples);
  for (std::int64_t c = 0; c < channels; ++c) {
    const double m = mean[At(c)], inv = inverse[At(c)], scale = gamma[At(c)] * inv;
    double sum = 0, squares = 0, size_of = 0, g_sum = 0, g_product = 0, g_size = 0;
    for (std::int64_t i = c; i < size; i += channels) sum += x[At(i)];
    for (std::int64_t i = c; i < size; i += channels) {
      const double d = x[At(i)] - m, v = d * scale + beta[At(c)] + (add ? static_cast<double>(residual[At(i)]) : 0.0);
      squares += std::pow(x[At(i)] - sum / n, 2);
      size_of += std::abs(static_cast<double>(x[At(i)])) + 1;
      const Expected y = Value(v, std::abs(d * scale) + 4, 4);
      ExpectNear({r.y[At(i)]}, {y}, relu, name + ", y");
      const double g = relu && !(r.y[At(i)] > 0) ? 0.0 : static_cast<double>(dy[At(i)]);
      if (add) Expect(static_cast<double>(r.dresidual[At(i)]) == g, name + ": dresidual");
      g_sum += g;
      g_product += g * d * inv;
      g_size += std::abs(g) * (std::abs(d) + 1);
    }
    const auto near = [&](float got, double wanted, double magnitude, std::int64_t terms, const char* what) {
      ExpectNear({got}, {Value(wanted, magnitude, terms)}, false, name + ", " + what);
    };
    near(r.mean[At(c)], sum / n, size_of / n + 1, samples, "mean");
    near(r.variance[At(c)], squares / n, 4 * size_of / n + 4, samples + 4, "variance");
    near(r.dbeta[At(c)], g_sum, g_size, samples + 2, "dbeta");
    near(r.dgamma[At(c)], g_product, g_size, samples + 8, "dgamma");
    for (std::int64_t i = c; i < size; i += channels) {
      const double d = x[At(i)] - m, g = relu && !(r.y[At(i)] > 0) ? 0.0 : static_cast<double>(dy[At(i)]);
      near(r.dx[At(i)], scale * (g - (g_sum + d * inv * g_product) / n), 8 + 4 * g_size / n, samples + 8, "dx");
    }
  }
  return Outcome::kDone;
}

}  // namespace keras_lth::fuzz

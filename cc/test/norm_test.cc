// Normalisation and its gradients against loops in double, on odd sizes; the same bits for any number of threads. Prints
// the instruction set and the number of failures.
#include "cc/norm/norm.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "cc/isa/isa.h"

namespace {

namespace norm = keras_lth::norm;
using Doubles = std::vector<double>;
using Floats = std::vector<float>;

int failures = 0;
std::mt19937_64 random_bits(7);

void Expect(bool holds, const std::string& what) {
  if (holds) return;
  ++failures;
  std::printf("FAILED: %s\n", what.c_str());
}

Floats Normals(std::int64_t count, float mean, float deviation) {
  std::normal_distribution<float> normal(mean, deviation);
  Floats result(static_cast<std::size_t>(count));
  std::generate(result.begin(), result.end(), [&] { return normal(random_bits); });
  return result;
}

void Near(const Floats& got, const Doubles& wanted, double tolerance, const std::string& name) {
  double most = 0.0, scale = 1.0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    most = std::max(most, std::abs(static_cast<double>(got[i]) - wanted[i]));
    scale = std::max(scale, std::abs(wanted[i]));
  }
  Expect(most <= tolerance * scale, name + ": off by " + std::to_string(most));
}

void Same(const Floats& a, const Floats& b, const std::string& name) {
  Expect(a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0, name + ": other bits");
}

// What is computed of one batch, in this order.
struct Results {
  Floats mean, variance, y, dx, dgamma, dbeta, dresidual;
};

void Check(std::int64_t samples, std::int64_t channels, bool add, bool relu, float offset) {
  const std::string name = std::to_string(samples) + " x " + std::to_string(channels) + (add ? ", added" : "") +
                           (relu ? ", relu" : "") + ", around " + std::to_string(offset);
  const std::int64_t size = samples * channels;
  const auto n = static_cast<std::size_t>(size), m = static_cast<std::size_t>(channels);
  const Floats x = Normals(size, offset, 1.5F), residual = Normals(size, 0, 1), dy = Normals(size, 0.5F, 1);
  const Floats gamma = Normals(channels, 1, 0.2F), beta = Normals(channels, 0, 1);
  std::vector<Results> all;
  Floats inverse(m);
  for (const unsigned threads : {1U, 3U, 0U}) {
    const norm::Run run{keras_lth::isa::Choose(""), threads};
    Results r{Floats(m), Floats(m), Floats(n), Floats(n), Floats(m), Floats(m), Floats(add ? n : 0)};
    norm::Moments(x.data(), samples, channels, r.mean.data(), r.variance.data(), run);
    for (std::size_t c = 0; c < m; ++c) inverse[c] = 1.0F / std::sqrt(r.variance[c] + 1e-3F);
    const norm::Channels c{channels, r.mean.data(), inverse.data(), gamma.data(), beta.data()};
    norm::Normalize(x.data(), add ? residual.data() : nullptr, samples, c, relu, r.y.data(), run);
    norm::NormalizeGradient(dy.data(), x.data(), add ? r.y.data() : nullptr, samples, c, relu,
                            {r.dx.data(), r.dgamma.data(), r.dbeta.data(), add ? r.dresidual.data() : nullptr}, run);
    if (add && relu) {
      Floats masked(n), sums(m);
      norm::MaskedSums(dy.data(), r.y.data(), samples, channels, masked.data(), sums.data(), run);
      Same(masked, r.dresidual, name + ", masked"), Same(sums, r.dbeta, name + ", sums");
    }
    all.push_back(r);
  }
  for (const Results& r : all) {
    Same(r.mean, all[0].mean, name), Same(r.variance, all[0].variance, name), Same(r.y, all[0].y, name);
    Same(r.dx, all[0].dx, name), Same(r.dgamma, all[0].dgamma, name), Same(r.dbeta, all[0].dbeta, name);
    Same(r.dresidual, all[0].dresidual, name);
  }
  if (samples == 0) return Expect(std::isnan(all[0].mean[0]) && std::isnan(all[0].variance[0]), name + ": not NaN");
  const Results& r = all[0];
  Doubles mean(m, 0.0), variance(m, 0.0), y(n), dx(n), dgamma(m, 0.0), dbeta(m, 0.0), g(n);
  const auto count = static_cast<double>(samples);
  for (std::size_t i = 0; i < n; ++i) mean[i % m] += x[i] / count;
  for (std::size_t i = 0; i < n; ++i) variance[i % m] += std::pow(x[i] - mean[i % m], 2) / count;
  Near(r.mean, mean, 1e-6, name + ", mean");
  Near(r.variance, variance, 1e-5, name + ", variance");
  for (std::size_t i = 0; i < n; ++i) {
    const double normal = (x[i] - mean[i % m]) / std::sqrt(variance[i % m] + 1e-3);
    const double sum = gamma[i % m] * normal + beta[i % m] + (add ? static_cast<double>(residual[i]) : 0.0);
    y[i] = relu ? std::max(sum, 0.0) : sum;
    // Where the sum is about 0 either side of the cut is right: that of the result.
    g[i] = !relu || r.y[i] > 0 ? static_cast<double>(dy[i]) : 0.0;
    dbeta[i % m] += g[i];
    dgamma[i % m] += g[i] * normal;
  }
  for (std::size_t i = 0; i < n; ++i) {
    const double inv = 1.0 / std::sqrt(variance[i % m] + 1e-3), normal = (x[i] - mean[i % m]) * inv;
    dx[i] = gamma[i % m] * inv * (g[i] - (dbeta[i % m] + normal * dgamma[i % m]) / count);
  }
  const double tolerance = 2e-6 * (1 + std::abs(static_cast<double>(offset)));
  Near(r.y, y, tolerance, name + ", y");
  Near(r.dx, dx, tolerance, name + ", dx");
  Near(r.dgamma, dgamma, 5 * tolerance, name + ", dgamma");
  Near(r.dbeta, dbeta, 5 * tolerance, name + ", dbeta");
  if (add) Near(r.dresidual, g, 0.0, name + ", dresidual");
}

// Windows in which many numbers are equal, and some are NaN or infinite.
void CheckMaxPool(const norm::Windows& w) {
  const std::string name = "pooling of " + std::to_string(w.height) + " x " + std::to_string(w.width) + " pixels, " +
                           std::to_string(w.channels) + " channels";
  const std::int64_t across = w.columns * w.width, size = w.batch * w.rows * w.height * across * w.channels;
  const Floats few = {0.0F, -0.0F, 1.0F, 2.0F, std::nanf(""), -std::numeric_limits<float>::infinity()};
  Floats x(static_cast<std::size_t>(size)), wanted(x.size(), 0.0F);
  std::uniform_int_distribution<std::size_t> any(0, few.size() - 1);
  std::generate(x.begin(), x.end(), [&] { return few[any(random_bits)]; });
  const Floats dy = Normals(w.batch * w.rows * w.columns * w.channels, 0, 1);
  for (std::size_t i = 0; i < dy.size(); ++i) {
    const auto at = static_cast<std::int64_t>(i), c = at % w.channels, column = at / w.channels % w.columns;
    const std::int64_t line = at / w.channels / w.columns;
    const auto pixel = [&](std::int64_t r, std::int64_t q) {
      const std::int64_t before = (line * w.height + r) * across + column * w.width + q;
      return static_cast<std::size_t>(before * w.channels + c);
    };
    std::size_t best = pixel(0, 0);
    for (std::int64_t r = 0; r < w.height; ++r) {
      for (std::int64_t q = 0; q < w.width; ++q) {
        if (x[best] < x[pixel(r, q)]) best = pixel(r, q);
      }
    }
    wanted[best] = dy[i];
  }
  for (const unsigned threads : {1U, 3U, 0U}) {
    Floats dx(x.size(), -1.0F);
    norm::MaxPoolGradient(x.data(), dy.data(), w, dx.data(), {keras_lth::isa::Choose(""), threads});
    Same(dx, wanted, name);
  }
}

}  // namespace

int main() {
  std::printf("instruction set %s\n", keras_lth::isa::Name(keras_lth::isa::Choose("")));
  for (const bool add : {false, true}) {
    for (const bool relu : {false, true}) {
      for (const std::int64_t channels : {1, 3, 16, 37, 64, 130}) {
        for (const std::int64_t samples : {0, 1, 7, 300, 5000}) Check(samples, channels, add, relu, 0.5F);
      }
      Check(2000, 20, add, relu, 1000.0F);
    }
  }
  for (const std::int64_t channels : {1, 5, 64}) {
    CheckMaxPool({3, 4, 5, 2, 2, channels});
    CheckMaxPool({2, 1, 3, 3, 1, channels});
    CheckMaxPool({1, 2, 2, 1, 1, channels});
    CheckMaxPool({20, 8, 8, 2, 2, channels});
  }
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}

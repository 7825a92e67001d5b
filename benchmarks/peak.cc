// The arithmetic peak: independent multiply-adds in registers, on as many threads as the argument says. Prints GFLOP/s.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
typedef float Vector __attribute__((vector_size(kBytes)));
constexpr int kLanes = kBytes / 4;
// Enough sums to hide the latency of four cycles on two units, few enough for sixteen registers.
constexpr int kSums = 12;
constexpr long kSteps = 2000000;

float Multiply(float by, float add) {
  Vector sums[kSums];
  Vector a, b;
  for (int lane = 0; lane < kLanes; ++lane) {
    a[lane] = by;
    b[lane] = add;
  }
  for (int i = 0; i < kSums; ++i) sums[i] = b * static_cast<float>(i);
  for (long step = 0; step < kSteps; ++step) {
    for (int i = 0; i < kSums; ++i) sums[i] = sums[i] * a + b;
  }
  Vector all = sums[0];
  for (int i = 1; i < kSums; ++i) all += sums[i];
  float sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += all[lane];
  return sum;
}

}  // namespace

int main(int count, char** arguments) {
  const int threads = count > 1 ? std::atoi(arguments[1]) : 1;
  double best = 0;
  std::vector<float> kept(static_cast<std::size_t>(threads));
  for (int turn = 0; turn < 10; ++turn) {
    const auto begin = std::chrono::steady_clock::now();
    std::vector<std::thread> pool;
    for (int i = 0; i < threads; ++i) {
      pool.emplace_back([&kept, i] { kept[static_cast<std::size_t>(i)] = Multiply(0.999f, 1e-3f); });
    }
    for (std::thread& thread : pool) thread.join();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    const double rate = 2.0 * kLanes * kSums * kSteps * threads / took.count() / 1e9;
    best = rate > best ? rate : best;
  }
  std::printf("%.3f\n", best);
  return kept[0] == 0.5f;
}

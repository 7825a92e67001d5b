// A chain of a few steps of all kinds, each with arrays of its own, against loops in double precision.
#include "cc/chain/chain.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <list>
#include <stdexcept>
#include <string>
#include <vector>

#include "cc/fuzz/fuzz.h"
#include "cc/fuzz/pattern.h"

namespace keras_lth::fuzz {

namespace {

constexpr std::int64_t kMostWork = 500000;  // multiplications of a step

std::size_t At(std::int64_t i) { return static_cast<std::size_t>(i); }

// What a step reads and writes, and what it must write. Arrays are as long as they have to be.
struct Step {
  std::string name;
  std::vector<float> x, other, values, bias, y;
  std::vector<Expected> expected;
  bool relu = false;

  void Expecting(std::int64_t size) {
    expected.resize(At(size));
    y.resize(expected.size());
  }
  sparse::Epilogue Epilogue() const { return {bias.empty() ? nullptr : bias.data(), relu}; }
  void AddBias(std::int64_t channels) {
    for (std::size_t i = 0; i < expected.size() && !bias.empty(); ++i) expected[i].Add(bias[i % At(channels)]);
  }
};

chain::Window AnyWindow(Bytes* bytes) {
  chain::Window window{};
  window.height = bytes->OneOf({3, 1, 2, 5});
  window.width = bytes->Chance(200) ? window.height : bytes->OneOf({1, 2, 4});
  window.stride_y = bytes->OneOf({1, 2, 3});
  window.stride_x = bytes->Chance(200) ? window.stride_y : bytes->OneOf({1, 2, 4});
  window.top = bytes->OneOf({1, 0, 2});
  window.left = bytes->OneOf({1, 0, 3});
  return window;
}

chain::Images AnyImages(Bytes* bytes, std::int64_t batch, std::int64_t channels) {
  const std::int64_t height = bytes->Between(0, bytes->OneOf({9, 20}));
  return {batch, height, bytes->Chance(128) ? height : bytes->Between(0, 30), channels};
}

// Calls visit(to, from, tap) for the pixels that meet: the first numbers of their channels.
template <class Visit>
void ForPixels(const chain::Images& in, const chain::Window& window, const chain::Images& out, const Visit& visit) {
  for (std::int64_t to = 0; to < out.batch * out.height * out.width; ++to) {
    const std::int64_t image = to / out.width / out.height;
    for (std::int64_t tap = 0; tap < window.height * window.width; ++tap) {
      const std::int64_t y = to / out.width % out.height * window.stride_y - window.top + tap / window.width;
      const std::int64_t x = to % out.width * window.stride_x - window.left + tap % window.width;
      if (y < 0 || y >= in.height || x < 0 || x >= in.width) continue;
      visit(to * out.channels, ((image * in.height + y) * in.width + x) * in.channels, tap);
    }
  }
}

// Calls visit(id, tap, row, col) for every weight inside the matrices.
template <class Visit>
void ForWeights(const sparse::Structure& s, const Visit& visit) {
  const std::int64_t area = std::int64_t{s.block_rows} * s.block_cols;
  for (std::int64_t g = 0; g < s.ColGroups(); ++g) {
    for (std::int64_t e = s.by_col.starts[g]; e < s.by_col.starts[g + 1]; ++e) {
      const std::int64_t tap = s.by_col.others[e] / s.RowGroups(), group = s.by_col.others[e] % s.RowGroups();
      for (std::int64_t i = 0; i < area; ++i) {
        const std::int64_t row = group * s.block_rows + i / s.block_cols, col = g * s.block_cols + i % s.block_cols;
        if (row < s.rows && col < s.cols) visit(e * area + i, tap, row, col);
      }
    }
  }
}

// Whether the chain takes a step, as it must if it makes sense.
template <class Add>
bool Taken(bool sound, const std::string& name, const Add& add) {
  bool taken = true;
  try {
    add();
  } catch (const std::invalid_argument&) {
    taken = false;
  }
  Expect(taken == sound, name + (sound ? ": refused" : ": accepted"));
  return taken;
}

bool AddConvolution(Bytes* bytes, chain::Chain* chain, Step* step) {
  const chain::Window window = AnyWindow(bytes);
  const std::int64_t most = bytes->OneOf({8, 3, 40});
  Pattern pattern(bytes, bytes->Between(1, most), bytes->Between(1, most), window.height * window.width);
  const sparse::Structure& s = pattern.structure;
  const bool fits = !bytes->Chance(20);
  const std::int64_t batch = bytes->Between(0, 4);
  const chain::Images in = AnyImages(bytes, batch, fits ? s.rows : s.rows + bytes->OneOf({1, -1}));
  const chain::Images out = AnyImages(bytes, batch, s.cols);
  step->name = "convolution in a chain, " + pattern.Name();
  // The steps of a run, the planes that they are packed into, and the structure.
  const std::int64_t plane = (out.height + window.height) * (out.width + window.width) * window.stride_y * window.stride_x;
  const std::int64_t work = batch * (plane * (s.rows + s.cols) + out.height * out.width * s.room * pattern.Area());
  if (work > kMostWork || s.RowGroups() * s.block_rows * plane > kMostWork) return true;
  step->x = Floats(bytes, in.Size(), true);
  step->values = Blocks(bytes, pattern, true);
  if (bytes->Chance(128)) step->bias = Floats(bytes, s.cols, true);
  step->relu = bytes->Chance(128);
  step->Expecting(out.Size());
  const bool taken = Taken(fits || out.Size() == 0, step->name, [&] {
    chain->AddConvolution(s, step->values.data(), in, window, out, step->x.data(), step->Epilogue(), step->y.data());
  });
  if (!taken || !fits) return taken;
  struct Weight {
    std::int64_t row, col;
    double value;
  };
  std::vector<std::vector<Weight>> weights(At(s.taps));
  ForWeights(s, [&](std::int64_t id, std::int64_t tap, std::int64_t row, std::int64_t col) {
    weights[At(tap)].push_back({row, col, step->values[At(id)]});
  });
  ForPixels(in, window, out, [&](std::int64_t to, std::int64_t from, std::int64_t tap) {
    for (const Weight& w : weights[At(tap)]) step->expected[At(to + w.col)].Add(w.value * step->x[At(from + w.row)]);
  });
  step->AddBias(s.cols);
  return true;
}

bool AddProduct(Bytes* bytes, chain::Chain* chain, std::list<Pattern>* patterns, Step* step) {
  const std::int64_t most = bytes->OneOf({20, 70, 200});
  // The chain reads the structure at every run.
  patterns->emplace_back(bytes, bytes->Between(0, most), bytes->Between(0, most), 1);
  const Pattern& pattern = patterns->back();
  const sparse::Structure& s = pattern.structure;
  const auto m = bytes->OneOf<std::int64_t>({1, 0, 2, 5, 31, 64, 65});
  step->name = "product in a chain, " + pattern.Name() + ", m " + std::to_string(m);
  if (m * (s.room * pattern.Area() + s.rows + s.cols) > kMostWork) return true;
  step->x = Floats(bytes, m * s.rows, true);
  step->values = Blocks(bytes, pattern, true);
  if (bytes->Chance(128)) step->bias = Floats(bytes, s.cols, true);
  step->relu = bytes->Chance(128);
  step->Expecting(m * s.cols);
  const bool single = s.block_rows == 1 && s.block_cols == 1;
  const bool taken = Taken(single, step->name, [&] {
    chain->AddProduct(s, step->values.data(), m, step->x.data(), step->Epilogue(), step->y.data());
  });
  if (!taken) return false;
  for (std::int64_t t = 0; t < m; ++t) {
    ForWeights(s, [&](std::int64_t id, std::int64_t, std::int64_t row, std::int64_t col) {
      step->expected[At(t * s.cols + col)].Add(static_cast<double>(step->values[At(id)]) * step->x[At(t * s.rows + row)]);
    });
  }
  step->AddBias(s.cols);
  return true;
}

bool AddPool(Bytes* bytes, chain::Chain* chain, Step* step) {
  const chain::Window window = AnyWindow(bytes);
  const std::int64_t batch = bytes->Between(0, 4), channels = bytes->OneOf({1, 16, 7, 37});
  const bool fits = !bytes->Chance(20), largest = bytes->Chance(128);
  const chain::Images in = AnyImages(bytes, batch, channels);
  const chain::Images out = AnyImages(bytes, batch, channels + (fits ? 0 : 1));
  step->name = std::string(largest ? "largest" : "mean") + " in a chain, channels " + std::to_string(channels);
  if (in.Size() > kMostWork || out.Size() * window.height * window.width > kMostWork) return true;
  step->x = Floats(bytes, in.Size(), true);
  step->Expecting(out.Size());
  if (!Taken(fits, step->name, [&] { chain->AddPool(in, window, out, largest, step->x.data(), step->y.data()); })) {
    return false;
  }
  std::vector<std::int64_t> met(step->expected.size(), 0);
  ForPixels(in, window, out, [&](std::int64_t to, std::int64_t from, std::int64_t) {
    for (std::int64_t c = 0; c < channels; ++c) {
      Expected& e = step->expected[At(to + c)];
      const double pixel = step->x[At(from + c)];
      if (!largest) e.Add(pixel);
      if (largest) e.sum = met[At(to + c)] == 0 ? pixel : std::max(e.sum, pixel);
      ++met[At(to + c)];
    }
  });
  // Outside of the image there is nothing: 0.
  for (std::size_t i = 0; i < met.size() && !largest; ++i) {
    if (met[i] > 0) step->expected[i].sum /= static_cast<double>(met[i]);
  }
  return true;
}

bool AddSum(Bytes* bytes, chain::Chain* chain, Step* step) {
  const std::int64_t n = bytes->Between(0, bytes->OneOf({40, 20000}));
  step->name = "sum in a chain of " + std::to_string(n);
  step->x = Floats(bytes, n, true);
  step->other = Floats(bytes, n, true);
  step->relu = bytes->Chance(128);
  step->Expecting(n);
  chain->AddSum(n, step->x.data(), step->other.data(), step->relu, step->y.data());
  for (std::size_t i = 0; i < step->expected.size(); ++i) {
    step->expected[i].Add(step->x[i]);
    step->expected[i].Add(step->other[i]);
  }
  return true;
}

}  // namespace

Outcome Chain(Bytes* bytes) {
  const isa::Level level = Level(bytes);
  const unsigned threads[] = {Workers(bytes), Workers(bytes)};
  chain::Chain chain(level);
  std::list<Step> steps;  // a chain holds the addresses of their arrays
  std::list<Pattern> patterns;
  for (std::int64_t left = bytes->Between(1, 3); left > 0; --left) {
    Step& step = steps.emplace_back();
    bool taken = false;
    switch (bytes->Between(0, 3)) {
      case 0: taken = AddConvolution(bytes, &chain, &step); break;
      case 1: taken = AddProduct(bytes, &chain, &patterns, &step); break;
      case 2: taken = AddPool(bytes, &chain, &step); break;
      default: taken = AddSum(bytes, &chain, &step);
    }
    if (!taken) return Outcome::kRefused;
  }
  std::vector<std::vector<float>> first;
  for (const unsigned some : threads) {
    // What is not written stays a number that nothing gives.
    for (Step& step : steps) std::fill(step.y.begin(), step.y.end(), 12345.0F);
    chain.Run(some);
    std::size_t number = 0;
    for (const Step& step : steps) {
      const std::string name = step.name + ", " + isa::Name(level) + ", threads " + std::to_string(some);
      ExpectNear(step.y, step.expected, step.relu, name);
      if (first.size() <= number) first.push_back(step.y);
      ExpectSame(step.y, first[number++], name);
    }
  }
  return Outcome::kDone;
}

}  // namespace keras_lth::fuzz

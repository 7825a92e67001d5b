// Where the bracket of keys ends, and what is listed inside it. Prints what fails and returns 1, or 0 when nothing does.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "cc/select/guess.h"
#include "cc/select/pass.h"
#include "cc/select/select.h"
#include "cc/test/formats.h"

namespace {

namespace sel = keras_lth::select;
using keras_lth::test::Bytes;
using keras_lth::test::Expect;

constexpr std::int32_t kInfinity = 0x7F800000;
constexpr std::int32_t kOne = 0x3F800000;

const sel::Kernels& Table() { return sel::KernelsFor(keras_lth::isa::Choose("")); }

// Bits of numbers from 1, each about as often as the others.
std::vector<std::int32_t> Numbers(std::size_t n, std::uint64_t different) {
  std::mt19937_64 random(2);
  std::vector<std::int32_t> numbers(n);
  for (auto& number : numbers) number = kOne + static_cast<std::int32_t>(random() % different);
  return numbers;
}

// Every k around a guess that stays: the threshold passes both ends of the bracket.
void CheckSweep() {
  constexpr std::size_t kSize = 60000, kFirst = 12000, kReach = 500;
  const std::vector<std::int32_t> values = Numbers(kSize, 200000);  // some are equal
  std::vector<std::size_t> ranking(kSize);
  std::iota(ranking.begin(), ranking.end(), std::size_t{0});
  std::stable_sort(ranking.begin(), ranking.end(), [&](std::size_t a, std::size_t b) { return values[a] > values[b]; });
  Bytes expected(kSize, 0), out(kSize);
  for (std::size_t i = 0; i < kFirst - kReach; ++i) expected[ranking[i]] = 1;
  for (std::size_t k = kFirst - kReach; k <= kFirst + kReach; ++k) {
    sel::Wanted wanted{k};
    wanted.near = static_cast<std::uint64_t>(values[ranking[kFirst - 1]]);
    wanted.threshold = true;
    const sel::Selection got = sel::TopK({{values.data(), {}, {out.data(), false}, kSize}}, sel::Format::kFloat32, {},
                                         wanted, Table(), 1 + k % 2);
    const auto threshold = static_cast<std::uint64_t>(values[ranking[k - 1]]);
    Expect(out == expected && got.threshold == threshold, "near, k " + std::to_string(k));
    expected[ranking[k]] = 1;
  }
}

// A list has what is inside the bracket, once each and at its place, as long as there is room: all of it where the room
// is for all values, whatever the lengths of the arrays.
void CheckLists(std::size_t n, unsigned threads, std::int32_t hi, bool room_for_all) {
  const std::string what = std::to_string(n) + " values, " + std::to_string(threads) + " threads";
  const std::vector<std::int32_t> values = Numbers(n, 1000);
  Bytes out(n);
  std::vector<sel::Array> arrays;
  for (std::size_t at = 0, length = 1; at < n; at += length, length = length * 3 + 1) {
    length = std::min(length, n - at);
    arrays.push_back({values.data() + at, {}, {out.data() + at, false}, length});
  }
  const sel::Data<std::int32_t> data(arrays, kInfinity, {}, Table(), threads);
  const std::size_t room = room_for_all ? n : sel::Room<std::int32_t>(n);
  const auto passed = sel::Pass(data, data.Between(kOne, hi), kOne + 5, true, room);
  Expect(passed.Complete(), what + ": the list is not complete");
  std::vector<bool> listed(n, false);
  std::size_t twice = 0, other = 0, not_inside = 0, not_marked = 0;
  for (std::size_t i = 0; i < data.chunks.size(); ++i) {
    std::size_t at = data.chunks[i].start;
    for (const sel::Segment& part : passed.chunks[i].parts) {
      for (std::size_t j = part.begin; j < part.begin + part.size; ++j) {
        const std::size_t place = at + passed.positions[j];
        twice += listed.at(place);
        other += passed.values[j] != values[place];
        listed[place] = true;
      }
      at += sel::kPart;
    }
  }
  for (std::size_t i = 0; i < n; ++i) {
    not_inside += listed[i] != (values[i] <= hi);
    not_marked += out[i] != (values[i] > kOne + 5);
  }
  Expect(twice == 0, what + ": listed twice");
  Expect(other == 0, what + ": another value is listed");
  Expect(not_inside == 0, what + ": listed is not what is inside");
  Expect(not_marked == 0, what + ": marked is not what is above the mark");
}

// Where there is no room for all, the pass says so and marks all the same.
void CheckFull() {
  constexpr std::size_t kSize = 200000;
  const std::vector<std::int32_t> values = Numbers(kSize, 1000);
  Bytes out(kSize);
  const std::vector<sel::Array> arrays = {{values.data(), {}, {out.data(), false}, kSize}};
  for (const std::size_t room : {std::size_t{0}, std::size_t{1}, std::size_t{1000}, kSize - 1}) {
    const sel::Data<std::int32_t> data(arrays, kInfinity, {}, Table(), 2);
    const auto passed = sel::Pass(data, data.Between(kOne, kOne + 999), kOne + 5, true, room);
    Expect(!passed.Complete() && passed.total.within == kSize, "room for " + std::to_string(room));
    const auto above = std::count_if(values.begin(), values.end(), [](std::int32_t x) { return x > kOne + 5; });
    Expect(std::count(out.begin(), out.end(), 1) == above, "marks with room for " + std::to_string(room));
  }
}

}  // namespace

int main() {
  CheckSweep();
  for (const unsigned threads : {1U, 2U, 3U}) {
    for (const std::size_t n : {1, 64, 4097, 10000, 32768}) CheckLists(n, threads, kOne + 999, true);
    for (const std::size_t n : {32769, 200001, 1000000}) CheckLists(n, threads, kOne + 9, false);
  }
  CheckFull();
  std::printf("%d failures\n", keras_lth::test::failures);
  return keras_lth::test::failures == 0 ? 0 : 1;
}

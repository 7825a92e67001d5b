#include "cc/fuzz/pattern.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>

namespace keras_lth::fuzz {

namespace {

constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kLongest = 100000;  // entries of an array that may be made here

bool SoundStarts(const Lists& lists, std::int64_t stored) {
  return lists.starts.front() == 0 && lists.starts.back() == stored &&
         std::is_sorted(lists.starts.begin(), lists.starts.end());
}

bool SoundList(const sparse::BlockList& list, std::int64_t groups, std::int64_t others, std::int64_t stored) {
  if (stored > 0 && list.others == nullptr) return false;
  for (std::int64_t g = 0; g < groups; ++g) {
    const std::int64_t begin = list.starts[g], end = list.starts[g + 1];
    for (std::int64_t e = begin; e < end; ++e) {
      if (list.others[e] < 0 || list.others[e] >= others) return false;
      if (e > begin && list.others[e] <= list.others[e - 1]) return false;
      if (list.places == nullptr) continue;
      const std::int64_t* first = list.firsts + list.others[e];
      if (list.places[e] < 0 || list.places[e] >= first[1] - first[0]) return false;
    }
  }
  return true;
}

template <class T>
void Meddle(Bytes* bytes, std::vector<T>* numbers) {
  if (numbers->empty()) return;
  const auto last = static_cast<std::int64_t>(numbers->size()) - 1;
  T& number = (*numbers)[static_cast<std::size_t>(bytes->Between(0, last))];
  switch (bytes->Between(0, 5)) {
    // It may have been meddled with before.
    case 0: number += number < std::numeric_limits<T>::max() ? 1 : 0; break;
    case 1: number -= number > std::numeric_limits<T>::min() ? 1 : 0; break;
    case 2: number = std::numeric_limits<T>::max() - 1; break;
    case 3: number = std::numeric_limits<T>::min() + 1; break;
    case 4: number = static_cast<T>(last); break;
    default: std::swap(number, (*numbers)[static_cast<std::size_t>(bytes->Between(0, last))]);
  }
}

// The numbers, or a copy of them in 16 bits, as long as they are.
sparse::Index View(const std::vector<std::int32_t>& numbers, bool narrow, std::vector<std::uint16_t>* copy) {
  if (!narrow) return numbers.data();
  copy->clear();
  for (const std::int32_t number : numbers) copy->push_back(static_cast<std::uint16_t>(number));
  copy->shrink_to_fit();
  return copy->data();
}

void Views(bool narrow, Lists* lists, sparse::BlockList* list) {
  if (list->starts != nullptr) list->starts = lists->starts.data();
  if (list->others != nullptr) list->others = View(lists->others, narrow, &lists->narrow_others);
  if (list->places != nullptr) list->places = View(lists->places, narrow, &lists->narrow_places);
}

}  // namespace

Pattern::Pattern(Bytes* bytes, std::int64_t rows, std::int64_t cols, std::int64_t taps) {
  sparse::Structure& s = structure;
  s.rows = rows;
  s.cols = cols;
  s.taps = taps;
  s.block_rows = bytes->OneOf({1, 1, 2, 3, 4, 8, 16, 16, 32, 33, 64, 1});
  s.block_cols = bytes->Chance(128) ? s.block_rows : bytes->OneOf({1, 16, 2, 4, 5, 8, 32, 64});
  const auto density = static_cast<std::uint64_t>(bytes->OneOf({256, 128, 64, 25, 13, 2, 0}));
  Noise noise(bytes->Word(2));
  const auto row_groups = static_cast<std::size_t>(taps * s.RowGroups());
  std::vector<std::vector<std::pair<std::int32_t, std::int32_t>>> of_row(row_groups);
  by_col.starts.push_back(0);
  for (std::int64_t c = 0; c < s.ColGroups(); ++c) {
    for (std::size_t r = 0; r < of_row.size(); ++r) {
      if (noise.Below(256) >= density) continue;
      const std::int64_t place = static_cast<std::int64_t>(by_col.others.size()) - by_col.starts.back();
      of_row[r].emplace_back(static_cast<std::int32_t>(c), static_cast<std::int32_t>(place));
      by_col.others.push_back(static_cast<std::int32_t>(r));
    }
    by_col.starts.push_back(static_cast<std::int64_t>(by_col.others.size()));
  }
  by_row.starts.push_back(0);
  for (const auto& row : of_row) {
    for (const auto& [col, place] : row) {
      by_row.others.push_back(col);
      by_row.places.push_back(place);
    }
    by_row.starts.push_back(static_cast<std::int64_t>(by_row.others.size()));
  }
  // What lies in the room behind the last block is never looked at.
  s.room = static_cast<std::int64_t>(by_col.others.size());
  if (bytes->Chance(100)) s.room += bytes->Between(1, bytes->OneOf({1, 9, 70}));
  for (std::vector<std::int32_t>* numbers : {&by_col.others, &by_row.others, &by_row.places}) {
    numbers->resize(static_cast<std::size_t>(s.room), bytes->OneOf({0, -1, std::numeric_limits<std::int32_t>::max()}));
  }
  for (Lists* lists : {&by_col, &by_row}) {
    lists->starts.shrink_to_fit();
    lists->others.shrink_to_fit();
    lists->places.shrink_to_fit();
  }
  narrow = bytes->Chance(128);
  s.by_col = {by_col.starts.data(), by_col.others.data(), nullptr, nullptr};
  s.by_row = {by_row.starts.data(), by_row.others.data(), by_row.places.data(), by_col.starts.data()};
  Views(narrow, &by_col, &s.by_col);
  Views(narrow, &by_row, &s.by_row);
}

void Pattern::Break(Bytes* bytes) {
  sparse::Structure& s = structure;
  broken = true;
  for (std::int64_t changes = bytes->Between(1, 3); changes > 0; --changes) {
    const auto extreme = [bytes](std::int64_t now) {
      now = std::clamp(now, -kMost, kMost);  // it may be extreme already
      return bytes->OneOf({std::int64_t{-1}, std::int64_t{0}, now + 1, now - 1, 2 * now, kMost, kMost + 1,
                           std::int64_t{1} << 62, std::numeric_limits<std::int64_t>::max(),
                           std::numeric_limits<std::int64_t>::min()});
    };
    const auto side = bytes->OneOf({&by_col, &by_row});
    sparse::BlockList& list = side == &by_col ? s.by_col : s.by_row;
    const sparse::Structure before = s;
    switch (bytes->Between(0, 11)) {
      case 0: s.rows = extreme(s.rows); break;
      case 1: s.cols = extreme(s.cols); break;
      case 2: s.taps = extreme(s.taps); break;
      case 3: s.room = extreme(s.room); break;
      case 4: s.block_rows = static_cast<std::int32_t>(extreme(s.block_rows)); break;
      case 5: s.block_cols = static_cast<std::int32_t>(extreme(s.block_cols)); break;
      case 6:
        (bytes->Chance(85) ? list.others : bytes->Chance(128) ? list.places : s.by_row.others) = nullptr;
        if (bytes->Chance(85)) list.starts = nullptr;
        break;
      case 7: s.by_col.places = s.by_row.places; break;
      case 8: Meddle(bytes, &side->starts); break;
      case 9: Meddle(bytes, &by_row.places); break;
      default: Meddle(bytes, &side->others);
    }
    // Sound numbers say how long the arrays are; those that would take too much memory are not for this test.
    const bool too_long = SoundNumbers() && (s.taps * s.RowGroups() > kLongest || s.ColGroups() > kLongest ||
                                             s.room > kLongest || s.rows > kLongest || s.cols > kLongest);
    if (too_long) s = before;
    Fit();
  }
}

bool Pattern::SoundNumbers() const {
  const sparse::Structure& s = structure;
  if (s.rows < 0 || s.cols < 0 || s.room < 0 || s.block_rows < 1 || s.block_cols < 1) return false;
  if (s.taps < 1 || s.taps > kMost) return false;
  // In 128 bits nothing of this overflows.
  __extension__ using Wide = __int128;
  const Wide row_groups = (Wide{s.rows} + s.block_rows - 1) / s.block_rows;
  const Wide col_groups = (Wide{s.cols} + s.block_cols - 1) / s.block_cols;
  return row_groups * s.taps <= kMost && col_groups <= kMost && s.room <= kMost &&
         Wide{s.room} * Area() <= std::numeric_limits<std::int64_t>::max() / 16;
}

// Makes the arrays as long as the numbers say, where they say it soundly.
void Pattern::Fit() {
  sparse::Structure& s = structure;
  if (!SoundNumbers()) return;
  const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  by_col.starts.resize(size(s.ColGroups() + 1), by_col.starts.back());
  by_row.starts.resize(size(s.taps * s.RowGroups() + 1), by_row.starts.back());
  for (std::vector<std::int32_t>* numbers : {&by_col.others, &by_row.others, &by_row.places}) {
    numbers->resize(size(s.room));
    numbers->shrink_to_fit();
  }
  by_col.starts.shrink_to_fit();
  by_row.starts.shrink_to_fit();
  const bool shared = s.by_col.places != nullptr;
  s.by_col.places = nullptr;
  Views(narrow, &by_col, &s.by_col);
  Views(narrow, &by_row, &s.by_row);
  s.by_row.firsts = by_col.starts.data();
  if (shared) s.by_col.places = s.by_row.places;
}

bool Pattern::Sound(sparse::Reads reads) const {
  const sparse::Structure& s = structure;
  if (!SoundNumbers()) return false;
  const std::int64_t stored = by_col.starts.back();
  if (stored > s.room || s.by_col.places != nullptr || (stored > 0 && s.by_row.places == nullptr)) return false;
  if (s.by_col.starts == nullptr || s.by_row.starts == nullptr || by_row.starts.back() != stored || stored < 0) return false;
  if (!SoundStarts(by_col, stored)) return false;
  return (reads == sparse::Reads::kByRow || SoundList(s.by_col, s.ColGroups(), s.taps * s.RowGroups(), stored)) &&
         (reads == sparse::Reads::kByCol ||
          (SoundStarts(by_row, stored) && SoundList(s.by_row, s.taps * s.RowGroups(), s.ColGroups(), stored)));
}

std::string Pattern::Name() const {
  const sparse::Structure& s = structure;
  return std::to_string(s.rows) + " x " + std::to_string(s.cols) + ", taps " + std::to_string(s.taps) + ", blocks " +
         std::to_string(s.block_rows) + " x " + std::to_string(s.block_cols) + ", room " + std::to_string(s.room) +
         (narrow ? ", 16 bits" : "") + (broken ? ", broken" : "");
}

bool Accepted(const Pattern& pattern, unsigned threads, sparse::Reads reads) {
  bool accepted = true;
  std::string why;
  try {
    sparse::Check(pattern.structure, threads, reads);
  } catch (const std::invalid_argument& error) {
    accepted = false;
    why = error.what();
  }
  const bool sound = pattern.Sound(reads);
  Expect(accepted == sound, pattern.Name() + (sound ? ": sound, but refused: " + why : ": accepted"));
  return accepted;
}

bool Expected::Near(float got) const {
  if (!std::isfinite(sum)) return std::isnan(sum) ? std::isnan(got) : static_cast<double>(got) == sum;
  // A rounding for each product and each addition; a denormal rounds by half of the least number.
  const auto roundings = static_cast<double>(2 * terms + 2);
  const double tolerance = roundings * (std::ldexp(magnitude, -24) + std::ldexp(1.0, -149));
  return std::abs(static_cast<double>(got) - sum) <= tolerance;
}

void ExpectNear(const std::vector<float>& got, const std::vector<Expected>& expected, bool relu,
                const std::string& name) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const Expected& wanted = expected[i];
    bool right = wanted.Near(got[i]);
    // Where the sum is about 0 either side of the cut is right.
    if (relu) right = (right && !(got[i] < 0.0F)) || (got[i] == 0.0F && (wanted.sum < 0.0 || wanted.Near(0.0F)));
    if (!right) {
      Wrong(name + ": [" + std::to_string(i) + "] is " + std::to_string(got[i]) + ", wanted " +
            std::to_string(wanted.sum));
    }
  }
}

void ExpectSame(const std::vector<float>& got, const std::vector<float>& other, const std::string& name) {
  for (std::size_t i = 0; i < got.size(); ++i) {
    // Of a sum of two NaNs either may be the result.
    const bool same = std::memcmp(&got[i], &other[i], sizeof(float)) == 0 || (std::isnan(got[i]) && std::isnan(other[i]));
    Expect(same, name + ": other bits at [" + std::to_string(i) + "]");
  }
}

std::vector<float> Floats(Bytes* bytes, std::int64_t count, bool finite) {
  Noise noise(bytes->Word(2));
  const std::uint64_t special = bytes->Chance(40) ? 20 : 0;
  std::vector<float> floats;
  floats.reserve(static_cast<std::size_t>(std::max<std::int64_t>(count, 1)));  // an empty array is not a null pointer
  floats.resize(static_cast<std::size_t>(count));
  for (float& x : floats) {
    x = noise.Weight();
    if (special == 0 || noise.Below(256) >= special) continue;
    const float specials[] = {-0.0F, std::numeric_limits<float>::denorm_min(), std::numeric_limits<float>::infinity(),
                              -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()};
    x = specials[noise.Below(finite ? 2 : 5)];
  }
  return floats;
}

std::vector<float> Blocks(Bytes* bytes, const Pattern& pattern, bool finite) {
  const sparse::Structure& s = pattern.structure;
  // In a broken structure a block of by_row may be another one of by_col, and lie over the edge there.
  std::vector<float> values = Floats(bytes, s.room * pattern.Area(), finite || pattern.broken);
  std::fill(values.begin() + s.Stored() * pattern.Area(), values.end(), std::numeric_limits<float>::quiet_NaN());
  if (!pattern.Sound(sparse::Reads::kByCol)) return values;
  for (std::int64_t c = 0; c < s.ColGroups(); ++c) {
    for (std::int64_t e = s.by_col.starts[c]; e < s.by_col.starts[c + 1]; ++e) {
      const std::int64_t row = s.by_col.others[e] % s.RowGroups() * s.block_rows, col = c * s.block_cols;
      for (std::int64_t i = 0; i < s.block_rows; ++i) {
        for (std::int64_t j = 0; j < s.block_cols; ++j) {
          const bool inside = row + i < s.rows && col + j < s.cols;
          if (!inside) values[static_cast<std::size_t>(e * pattern.Area() + i * s.block_cols + j)] = 0.0F;
        }
      }
    }
  }
  return values;
}

sparse::Values Stored(Bytes* bytes, const std::vector<float>& values, std::vector<std::uint16_t>* halves) {
  bool exact = true;
  for (const float x : values) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof(bits));
    halves->push_back(static_cast<std::uint16_t>(bits >> 16));
    exact = exact && (bits & 0xFFFF) == 0;
  }
  if (exact && !values.empty() && bytes->Chance(64)) return {halves->data(), sparse::Storage::kBfloat16};
  return {values.data(), sparse::Storage::kFloat32};
}

}  // namespace keras_lth::fuzz

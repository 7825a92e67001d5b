#include "cc/sparse/structure.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <string>

#include "cc/threads/for_each.h"

namespace keras_lth::sparse {

namespace {

constexpr std::int64_t kPart = std::int64_t{1} << 16;  // entries checked by a thread at a time

[[noreturn]] void Refuse(const std::string& what) { throw std::invalid_argument(what); }

unsigned Threads(unsigned threads, std::int64_t work) { return work <= kPart ? 1U : threads; }

// Whether all items are in 0 ... limit - 1: no sign is set in x nor in limit - 1 - x. Vectors on every instruction set.
bool InRange(const std::int32_t* items, std::int64_t count, std::int64_t limit) {
  const auto most = static_cast<std::uint32_t>(limit - 1);
  std::uint32_t signs = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto x = static_cast<std::uint32_t>(items[i]);
    signs |= x | (most - x);
  }
  return signs >> 31 == 0;
}

// Items that are not above the one before them, of items begin ... end - 1; begin > 0.
std::int64_t Descents(const std::int32_t* items, std::int64_t begin, std::int64_t end) {
  std::int32_t descents = 0;  // a part's fit
  for (std::int64_t i = begin; i < end; ++i) descents += items[i - 1] >= items[i] ? 1 : 0;
  return descents;
}

// The same, of those that are the first of a group.
std::int64_t DescentsBetween(const BlockList& list, std::int64_t groups, std::int64_t begin, std::int64_t end) {
  const std::int64_t* next = std::lower_bound(list.starts, list.starts + groups + 1, begin);
  std::int64_t descents = 0;
  for (std::int64_t last = -1; *next < end; last = *next++) {
    descents += *next != last && list.others[*next - 1] >= list.others[*next] ? 1 : 0;
  }
  return descents;
}

// The number of blocks that a list ends with.
std::int64_t Last(const BlockList& list, const std::string& name, std::int64_t groups, std::int64_t room) {
  if (list.starts == nullptr) Refuse(name + ".starts is missing");
  const std::int64_t stored = list.starts[groups];
  if (stored < 0 || stored > room) {
    Refuse(name + ".starts ends with " + std::to_string(stored) + ", but there is room for " + std::to_string(room) +
           " blocks");
  }
  return stored;
}

void CheckList(const BlockList& list, const std::string& name, std::int64_t groups, std::int64_t others,
               std::int64_t stored, unsigned threads) {
  if (stored > 0 && list.others == nullptr) Refuse(name + ".others is missing");
  if (list.starts[0] != 0) Refuse(name + ".starts begins with " + std::to_string(list.starts[0]) + ", not 0");
  // Starts go up from 0 to `stored`, so none of them leads out of the lists.
  for (std::int64_t g = 0; g < groups; ++g) {
    if (list.starts[g] > list.starts[g + 1]) Refuse(name + ".starts goes down after group " + std::to_string(g));
  }
  const std::int64_t parts = (stored + kPart - 1) / kPart;
  threads::ForEach(Threads(threads, stored), static_cast<std::size_t>(parts), [&](unsigned, std::size_t part) {
    const std::int64_t begin = static_cast<std::int64_t>(part) * kPart;
    const std::int64_t end = std::min(begin + kPart, stored);
    if (!InRange(list.others + begin, end - begin, others)) {
      Refuse(name + ".others holds a number that is not in 0..." + std::to_string(others - 1));
    }
    if (list.ids != nullptr && !InRange(list.ids + begin, end - begin, stored)) {
      Refuse(name + ".ids holds a number that is not in 0..." + std::to_string(stored - 1));
    }
    // Only from one group to the next may the others go down. Counted, because that takes whole vectors.
    const std::int64_t first = std::max<std::int64_t>(begin, 1);
    if (Descents(list.others, first, end) != DescentsBetween(list, groups, first, end)) {
      Refuse(name + ".others does not ascend within a group");
    }
  });
}

}  // namespace

void Check(const Structure& structure, unsigned threads) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  const Structure& s = structure;
  if (s.rows < 0 || s.cols < 0) Refuse("a structure's shape is " + std::to_string(s.rows) + " x " + std::to_string(s.cols));
  if (s.taps < 1 || s.taps > kMost) Refuse("a structure has " + std::to_string(s.taps) + " taps");
  if (s.block_rows < 1 || s.block_cols < 1) {
    Refuse("a block is " + std::to_string(s.block_rows) + " x " + std::to_string(s.block_cols));
  }
  if (s.rows > std::numeric_limits<std::int64_t>::max() / 2 || s.cols > std::numeric_limits<std::int64_t>::max() / 2 ||
      s.RowGroups() > kMost / s.taps || s.ColGroups() > kMost) {
    Refuse("a structure has more than " + std::to_string(kMost) + " groups of rows or columns");
  }
  if (s.room < 0 || s.room > kMost) Refuse("a structure has room for " + std::to_string(s.room) + " blocks");
  const std::int64_t area = std::int64_t{s.block_rows} * s.block_cols;
  if (s.room > std::numeric_limits<std::int64_t>::max() / 16 / area) Refuse("a structure has room for too many weights");
  const std::int64_t row_groups = s.taps * s.RowGroups();
  const std::int64_t stored = Last(s.by_col, "by_col", s.ColGroups(), s.room);
  const std::int64_t in_rows = Last(s.by_row, "by_row", row_groups, s.room);
  if (in_rows != stored) {
    Refuse("by_row.starts ends with " + std::to_string(in_rows) + ", but by_col's with " + std::to_string(stored));
  }
  CheckList(s.by_col, "by_col", s.ColGroups(), row_groups, stored, threads);
  CheckList(s.by_row, "by_row", row_groups, s.ColGroups(), stored, threads);
  if (s.by_col.ids != nullptr) Refuse("by_col.ids is given, but values are in the order of by_col");
  if (stored > 0 && s.by_row.ids == nullptr) Refuse("by_row.ids is missing");
}

}  // namespace keras_lth::sparse

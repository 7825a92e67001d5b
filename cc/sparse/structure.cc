#include "cc/sparse/structure.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <string>

#include "cc/isa/isa.h"
#include "cc/sparse/kernels.h"
#include "cc/threads/for_each.h"

namespace keras_lth::sparse {

namespace {

constexpr std::int64_t kPart = std::int64_t{1} << 16;  // entries checked by a thread at a time
constexpr std::int64_t kFew = 4 * kPart;               // so many take less time than waking a thread

[[noreturn]] void Refuse(const std::string& what) { throw std::invalid_argument(what); }

[[noreturn]] void RefusePlaces(const std::string& name) {
  Refuse(name + ".places holds a number that is not below the number of blocks of the group in " + name + ".others");
}

unsigned Threads(unsigned threads, std::int64_t work) { return work <= kFew ? 1U : threads; }

// Of entries begin ... end - 1, those that are the first of a group and not above the entry before them.
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

// Starts go up from 0 to the number of blocks, so none of them leads out of the lists.
void CheckStarts(const BlockList& list, const std::string& name, std::int64_t groups) {
  if (list.starts[0] != 0) Refuse(name + ".starts begins with " + std::to_string(list.starts[0]) + ", not 0");
  for (std::int64_t g = 0; g < groups; ++g) {
    if (list.starts[g] > list.starts[g + 1]) Refuse(name + ".starts goes down after group " + std::to_string(g));
  }
}

// Entries begin ... end - 1 whose places are not among the blocks of their other group, which is known to be one.
std::int64_t Misplaced(const BlockList& list, std::int64_t begin, std::int64_t end) {
  return list.others.Visit([&](const auto* others) {
    return list.places.Visit([&](const auto* places) {
      std::int64_t misplaced = 0;
      for (std::int64_t e = begin; e < end; ++e) {
        const std::int64_t other = others[e], place = places[e];
        misplaced += place < 0 || place >= list.firsts[other + 1] - list.firsts[other] ? 1 : 0;
      }
      return misplaced;
    });
  });
}

void CheckList(const BlockList& list, const std::string& name, std::int64_t groups, std::int64_t others,
               std::int64_t stored, Places places, const Kernels& kernels, unsigned threads) {
  if (stored > 0 && list.others == nullptr) Refuse(name + ".others is missing");
  CheckStarts(list, name, groups);
  const std::int64_t parts = (stored + kPart - 1) / kPart;
  threads::ForEach(Threads(threads, stored), static_cast<std::size_t>(parts), [&](unsigned, std::size_t part) {
    const std::int64_t begin = static_cast<std::int64_t>(part) * kPart;
    const std::int64_t end = std::min(begin + kPart, stored);
    // Only from one group to the next may the others go down. Counted, because that takes whole vectors.
    const Scan scan = kernels.scan(list.others + begin, end - begin, others);
    if (scan.outside) {
      Refuse(name + ".others holds a number that is not in 0..." + std::to_string(others - 1));
    }
    if (list.places != nullptr && places == Places::kRead && Misplaced(list, begin, end) > 0) RefusePlaces(name);
    const bool joint = begin > 0 && list.others[begin - 1] >= list.others[begin];
    if (scan.descents + (joint ? 1 : 0) != DescentsBetween(list, groups, std::max<std::int64_t>(begin, 1), end)) {
      Refuse(name + ".others does not ascend within a group");
    }
  });
}

}  // namespace

void RefusePlaces() { RefusePlaces("by_row"); }

void Check(const Structure& structure, unsigned threads, Reads reads, Places places) {
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
  const Kernels& kernels = KernelsFor(isa::Choose(""));
  if (s.by_col.places != nullptr) Refuse("by_col.places is given, but values are in the order of by_col");
  if (stored > 0 && s.by_row.places == nullptr) Refuse("by_row.places is missing");
  if (reads != Reads::kByRow) {
    CheckList(s.by_col, "by_col", s.ColGroups(), row_groups, stored, places, kernels, threads);
  }
  if (reads == Reads::kByCol) return;
  if (reads == Reads::kByRow) CheckStarts(s.by_col, "by_col", s.ColGroups());
  if (s.by_row.firsts != s.by_col.starts) Refuse("by_row.firsts is not by_col.starts");
  CheckList(s.by_row, "by_row", row_groups, s.ColGroups(), stored, places, kernels, threads);
}

}  // namespace keras_lth::sparse

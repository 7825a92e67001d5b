// Which weights of a matrix, or of a convolution's kernel, are stored. Views only: the caller owns the arrays.
//
// A matrix of `rows` inputs and `cols` outputs is cut into blocks of block_rows x block_cols, the last ones filled up
// with zeros. A convolution's kernel [kh, kw, cin, cout] is `taps` = kh * kw such matrices of cin rows, one after the
// other; a product has one tap. Row group r of tap t has the number t * RowGroups() + r.
// Values are [room, block_rows, block_cols], in the order of `by_col`. Unstructured weights are blocks of 1 x 1.
// Values and lists may have room for more blocks than there are, so that the next structure can take their place: what
// lies behind the last block is neither read nor, in a gradient of the values, anything but 0.
#ifndef KERAS_LTH_CC_SPARSE_STRUCTURE_H_
#define KERAS_LTH_CC_SPARSE_STRUCTURE_H_

#include <cstdint>

#include "cc/sparse/index.h"

namespace keras_lth::sparse {

// The stored blocks of each group of outputs (or inputs), as compressed lists.
struct BlockList {
  const std::int64_t* starts;   // [groups + 1]: the blocks of group g are starts[g] ... starts[g + 1] - 1
  Index others;                 // [room]: the group at the other side, ascending within a group
  Index places;                 // [room]: the block's place among the values of its other group; null: as in this list
  const std::int64_t* firsts;   // where the values of the other groups begin; null without places

  // The place of a list's entry among all values.
  [[gnu::always_inline]] std::int64_t Id(std::int64_t e) const {
    return places == nullptr ? e : firsts[others[e]] + places[e];
  }
};

struct Structure {
  std::int64_t rows, cols;  // inputs of one tap, outputs; without padding
  std::int64_t taps;
  std::int32_t block_rows, block_cols;
  std::int64_t room;    // blocks that the lists and the values have place for
  BlockList by_col;     // groups: ColGroups(); others: numbers of row groups, with the tap
  BlockList by_row;     // groups: taps * RowGroups(); others: numbers of column groups; places, firsts: by_col.starts

  std::int64_t RowGroups() const { return (rows + block_rows - 1) / block_rows; }
  std::int64_t ColGroups() const { return (cols + block_cols - 1) / block_cols; }
  // Blocks that there are, room for more left out; of a structure that Check has passed.
  std::int64_t Stored() const { return by_col.starts[ColGroups()]; }
};

// The lists that a product reads entry by entry: by_col for the product and for the gradient of its values, by_row for
// the gradient of its input. Of the other list it reads the number of blocks alone.
enum class Reads { kBoth, kByCol, kByRow };

// Whether a check reads the places, too. A product of single weights need not have it done: it finds out itself, as it
// collects them, whether a place leads out of the values.
enum class Places { kRead, kLeft };

// Throws std::invalid_argument, naming what is wrong, unless every index of these lists is in range and both orders hold
// the same number of blocks, for which there is room; afterwards no kernel that reads no more reads or writes outside its
// arrays. Costs one read of the indices.
void Check(const Structure& structure, unsigned threads, Reads reads = Reads::kBoth, Places places = Places::kRead);

// Throws what Check throws of by_row's places.
[[noreturn]] void RefusePlaces();

}  // namespace keras_lth::sparse

#endif  // KERAS_LTH_CC_SPARSE_STRUCTURE_H_

// Numbers of groups, as a view: in 32 bits, or in 16 where all of them fit.
#ifndef KERAS_LTH_CC_SPARSE_INDEX_H_
#define KERAS_LTH_CC_SPARSE_INDEX_H_

#include <cstddef>
#include <cstdint>

namespace keras_lth::sparse {

// Kernels of all instruction sets use it, so no function of it may be compiled by itself.
class Index {
 public:
  [[gnu::always_inline]] Index(std::nullptr_t = nullptr) {}
  [[gnu::always_inline]] Index(const std::int32_t* wide) : wide_(wide) {}
  [[gnu::always_inline]] Index(const std::uint16_t* narrow) : narrow_(narrow) {}

  [[gnu::always_inline]] std::int64_t operator[](std::int64_t i) const {
    return narrow_ != nullptr ? std::int64_t{narrow_[i]} : std::int64_t{wide_[i]};
  }
  [[gnu::always_inline]] Index operator+(std::int64_t n) const {
    Index later;
    if (narrow_ != nullptr) later.narrow_ = narrow_ + n;
    if (wide_ != nullptr) later.wide_ = wide_ + n;
    return later;
  }
  [[gnu::always_inline]] bool operator==(const Index& other) const {
    return narrow_ == other.narrow_ && wide_ == other.wide_;
  }
  [[gnu::always_inline]] bool operator!=(const Index& other) const { return !(*this == other); }

  // body(numbers), with a pointer of their type.
  template <class Body>
  [[gnu::always_inline]] auto Visit(Body body) const {
    return narrow_ != nullptr ? body(narrow_) : body(wide_);
  }

 private:
  const std::uint16_t* narrow_ = nullptr;
  const std::int32_t* wide_ = nullptr;
};

}  // namespace keras_lth::sparse

#endif  // KERAS_LTH_CC_SPARSE_INDEX_H_

// Working memory that calls hand on to each other, so that a call does not fault in fresh pages.
#ifndef KERAS_LTH_CC_SPARSE_SCRATCH_H_
#define KERAS_LTH_CC_SPARSE_SCRATCH_H_

#include <cstddef>
#include <cstdint>

namespace keras_lth::sparse {

// `count` floats, not initialised, at a multiple of 64 bytes. Throws std::bad_alloc.
class Scratch {
 public:
  explicit Scratch(std::int64_t count);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  float* data() const { return data_; }

 private:
  float* data_;
  std::size_t bytes_;
};

}  // namespace keras_lth::sparse

#endif  // KERAS_LTH_CC_SPARSE_SCRATCH_H_

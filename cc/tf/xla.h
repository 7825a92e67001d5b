// The same products as a custom call of XLA on the CPU.
//
// XLA finds the function by name in a registry of its own, whose two C++ functions TensorFlow exports. They are looked
// up, not linked; where they are missing nothing is registered, and Python uses a formulation in TensorFlow's own ops.
#ifndef KERAS_LTH_CC_TF_XLA_H_
#define KERAS_LTH_CC_TF_XLA_H_

namespace keras_lth::tf {

// The name of the target, for tf.raw_ops.XlaCustomCallV2. What it expects is versioned by its number.
inline constexpr const char* kTarget = "keras_lth_sparse_v3";

// False where this TensorFlow has no such registry.
bool RegisterXlaTarget();

}  // namespace keras_lth::tf

#endif  // KERAS_LTH_CC_TF_XLA_H_

// The ops of a batch normalisation in training: KerasLthMoments, KerasLthNormalize and its gradients,
// KerasLthNormalizeGrad and, where a residual was added, KerasLthNormalizeAddGrad; KerasLthMaskedSums, the way back
// through a ReLU to a bias; KerasLthMaxPoolGrad, that through a pooling.
#ifndef KERAS_LTH_CC_TF_NORMALIZE_H_
#define KERAS_LTH_CC_TF_NORMALIZE_H_

namespace keras_lth::tf {

// Registers them with their kernels. Throws Error.
void RegisterNormalize();

}  // namespace keras_lth::tf

#endif  // KERAS_LTH_CC_TF_NORMALIZE_H_

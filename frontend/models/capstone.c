/* capstone.c: every kind of layer once: convolution, linear, attention in which each image of the batch sees the others, softmax. */
#include "models.h"

tt_val model_capstone(tt_val x, void *arg) {
  const model_config *c = arg;
  return tt_sequential(x,
    TT_CONV2D(32, 3), TT_RELU, TT_FLATTEN,
    TT_LINEAR(256), TT_RELU,
    TT_SELF_ATTENTION(256),
    TT_LINEAR(c->classes), TT_SOFTMAX);
}

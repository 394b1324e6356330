/* mlp.c: a perceptron of two hidden layers. */
#include "models.h"

tt_val model_mlp(tt_val x, void *arg) {
  const model_config *c = arg;
  return tt_sequential(tt_flatten(x, 1),
    TT_LINEAR(512), TT_RELU,
    TT_LINEAR(512), TT_RELU,
    TT_LINEAR(c->classes));
}

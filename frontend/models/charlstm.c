/* charlstm.c: Karpathy 2015, "The unreasonable effectiveness of recurrent neural networks": tokens [B,T], walked by two layers of LSTM (Hochreiter & Schmidhuber
 * 1997) from states of zero, to logits [B,T,vocabulary] of what follows each. */
#include "models.h"

tt_val model_charlstm(tt_val tokens, void *arg) {
  const model_config *c = arg;
  tt_val x = tt_transpose(tt_embedding(tokens, "embedding", c->classes, 128), 0, 1);              /* [T,B,128] */
  tt_val y = tt_lstm(x, "lstm", 256, .layers = 2).y;
  return tt_linear(tt_transpose(y, 0, 1), "head", c->classes);
}

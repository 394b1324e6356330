/* bert.c: Devlin et al. 2018, "BERT: pre-training of deep bidirectional transformers for language understanding", as a masked language model: tokens [B,T], of
 * which the data set hides a share, to logits [B,T,vocabulary] of what stands there. Each position sees all others; the last token of the vocabulary is the
 * mask. Its size is BERT-mini's (Turc et al. 2019) with windows of 128; its norms come first, as in gpt, and positions turn q and k (Su et al. 2021, "RoFormer:
 * enhanced transformer with rotary position embedding"). By learned positions it must find out first what stands beside what, and guesses by the frequency of
 * characters alone for hundreds of steps until then. */
#include "gpt.h"

tt_val model_bert(tt_val x, void *arg) {
  const model_config *m = arg;
  gpt_config c = {.layers = 4, .heads = 4, .channels = 256, .context = 128, .vocabulary = m->classes, .bidirectional = true, .rotary = true};
  return gpt_forward(x, &c);
}

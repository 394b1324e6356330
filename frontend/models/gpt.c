/* gpt.c: Radford et al. 2019, "Language models are unsupervised multitask learners": tokens [B,T] to logits [B,T,vocabulary] of what follows each: learned
 * positions, blocks of causal attention and a perceptron with the norms in front, and a head that is the embedding once more. */
#include "gpt.h"

tt_val gpt_table(tt_val tokens, const char *name, int64_t n, const gpt_config *c) {
  tt_scope_push(tokens, name);
  tt_val w = tt_param_typed(tokens.trace, "weight", c->real, TT_SHAPE(n, c->channels), tt_init_normal(0, 0.02), TT_TRAINED);
  tt_scope_pop(tokens);
  return w;
}

/* While a text is generated, k and v of what was before come from caches. */
static tt_val attend(tt_val q, tt_val k, tt_val v, int64_t block, void *arg) {
  const gpt_config *c = arg;
  tt_val at = tt_position(q);
  if (!at.trace) return tt_f_attention(q, k, v, .causal = true);
  return tt_f_attention(q, tt_cached(k, "k", 2, c->context), tt_cached(v, "v", 2, c->context), .causal = true, .length = tt_add(at, tt_dim(q, 2)));
}

tt_val gpt_forward(tt_val tokens, const gpt_config *c) {
  tt_val wte = gpt_table(tokens, "wte", c->vocabulary, c), none = {0}, at = tt_position(tokens), x = tt_f_embedding(tokens, wte);
  if (!c->rotary) {
    tt_val wpe = gpt_table(tokens, "wpe", c->context, c);
    x = tt_add(x, at.trace ? tt_dynamic_slice(wpe, 0, at, tt_dim(tokens, 1)) : tt_slice(wpe, 0, 0, tt_dim(tokens, 1), 1));
  }
  x = model_transformer(x, &(transformer_config){.n = c->layers, .heads = c->heads, .attend = c->bidirectional ? NULL : attend, .arg = (void *)c, .tanh_gelu = true, .rotary = c->rotary, .std = 0.02});
  return tt_f_linear(tt_layer_norm(x, "ln", 1), wte, none);
}

/* What a file of weights says about its sizes goes first. */
static gpt_config sized(const model_config *m, gpt_config c) {
  if (m->gpt.layers) c.layers = m->gpt.layers, c.heads = m->gpt.heads, c.channels = m->gpt.channels, c.context = m->gpt.context;
  c.vocabulary = m->classes;
  return c;
}
gpt_config gpt_small(const model_config *c) { return sized(c, (gpt_config){.layers = 6, .heads = 6, .channels = 384, .context = 256}); }
gpt_config gpt_124m(const model_config *c) { return sized(c, (gpt_config){.layers = 12, .heads = 12, .channels = 768, .context = 1024}); }

tt_val model_gpt(tt_val x, void *arg) {
  gpt_config c = gpt_small(arg);
  return gpt_forward(x, &c);
}
tt_val model_gpt2(tt_val x, void *arg) {
  gpt_config c = gpt_124m(arg);
  return gpt_forward(x, &c);
}

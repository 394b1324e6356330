/* transformer.c: the pre-norm block (Vaswani et al. 2017, "Attention is all you need"; the norms first, as in Radford et al. 2019) that vit, gpt and bert are
 * stacks of: x + attention(norm(x)), then x + mlp(norm(x)), whose hidden layer is four times as wide. */
#include "models.h"

#include <math.h>
#include <stdio.h>

static tt_val linear(tt_val x, const char *name, int64_t out, double std) {
  if (!(std > 0)) return tt_linear(x, name, out);
  return tt_linear(x, name, out, .weight = tt_init_normal(0, std), .bias = tt_init_zeros());
}

tt_val model_transformer(tt_val x, const transformer_config *c) {
  tt_shape s = tt_shape_of(x), split = TT_SHAPE(s.dim[0], s.dim[1], c->heads, s.dim[2] / c->heads);      /* [B,T,C] */
  double joins = c->std / sqrt(2 * (double)c->n);
  tt_scope_push(x, "blocks");
  for (int64_t i = 0; i < c->n; i++) {
    char name[24];
    tt_val part[3];
    snprintf(name, sizeof name, "%lld", (long long)i);
    tt_scope_push(x, name);
    tt_split(linear(tt_layer_norm(x, "ln1", 1), "qkv", 3 * s.dim[2], c->std), 3, 2, part);
    for (int k = 0; k < 3; k++) {
      part[k] = tt_reshape(part[k], split);
      if (c->rotary && k < 2) part[k] = tt_rotary_embedding(part[k]);
      part[k] = tt_permute(part[k], TT_AXES(0, 2, 1, 3));
    }
    tt_val seen = c->attend ? c->attend(part[0], part[1], part[2], i, c->arg) : tt_f_attention(part[0], part[1], part[2], .causal = c->causal);
    x = tt_add(x, linear(tt_reshape(tt_permute(seen, TT_AXES(0, 2, 1, 3)), s), "proj", s.dim[2], joins));
    x = tt_add(x, linear(tt_gelu(linear(tt_layer_norm(x, "ln2", 1), "fc1", 4 * s.dim[2], c->std), c->tanh_gelu), "fc2", s.dim[2], joins));
    tt_scope_pop(x);
  }
  tt_scope_pop(x);
  return x;
}

/* transformer.c: the pre-norm block (Vaswani et al. 2017, "Attention is all you need"; the norms first, as in Radford et al. 2019) that vit and gpt are
 * stacks of: x + attention(norm(x)), then x + mlp(norm(x)), whose hidden layer is four times as wide. */
#include "models.h"

#include <stdio.h>

tt_val model_transformer(tt_val x, int64_t n, int64_t heads, bool causal, bool tanh_gelu) {
  tt_shape s = tt_shape_of(x), split = TT_SHAPE(s.dim[0], s.dim[1], heads, s.dim[2] / heads);      /* [B,T,C] */
  tt_scope_push(x, "blocks");
  for (int64_t i = 0; i < n; i++) {
    char name[16];
    tt_val part[3];
    snprintf(name, sizeof name, "%lld", (long long)i);
    tt_scope_push(x, name);
    tt_split(tt_linear(tt_layer_norm(x, "ln1", 1), "qkv", 3 * s.dim[2]), 3, 2, part);
    for (int k = 0; k < 3; k++) part[k] = tt_permute(tt_reshape(part[k], split), TT_AXES(0, 2, 1, 3));
    tt_val seen = tt_permute(tt_f_attention(part[0], part[1], part[2], .causal = causal), TT_AXES(0, 2, 1, 3));
    x = tt_add(x, tt_linear(tt_reshape(seen, s), "proj", s.dim[2]));
    x = tt_add(x, tt_linear(tt_gelu(tt_linear(tt_layer_norm(x, "ln2", 1), "fc1", 4 * s.dim[2]), tanh_gelu), "fc2", s.dim[2]));
    tt_scope_pop(x);
  }
  tt_scope_pop(x);
  return x;
}

/* transformer.c: blocks of attention and a feed-forward part, and images as rows of patches. A block is a list of branches, each with a residual connection and a norm:
 *
 *     norm_first:  x = x + branch(norm(x))          else:  x = norm(x + branch(x)) */
#include "../frontend.h"

typedef struct { tt_here here; const tt_transformer_options *o; int64_t heads, hidden; tt_val memory; } block;
typedef tt_val branch_fn(const block *b, tt_val x);

static tt_val self_attention(const block *b, tt_val x) {
  return tt_multi_head_attention(x, x, "self_attn", b->heads, .causal = b->o->causal, .mask = b->o->mask, .no_bias = b->o->no_bias);
}

static tt_val cross_attention(const block *b, tt_val x) {
  return tt_multi_head_attention(x, b->memory, "multihead_attn", b->heads, .mask = b->o->memory_mask, .no_bias = b->o->no_bias);
}

static tt_val feed_forward(const block *b, tt_val x) {
  tt_val h = tt_linear(x, "linear1", b->hidden, .no_bias = b->o->no_bias);
  tt_activation a = b->o->activation;
  h = a == TT_ACT_RELU ? tt_relu(h) : a == TT_ACT_SILU ? tt_silu(h) : tt_gelu(h, a == TT_ACT_GELU_TANH);
  return tt_linear(tt_dropout(h, b->o->dropout), "linear2", tt_dim(x, 2), .no_bias = b->o->no_bias);
}

static tt_val residual(const block *b, tt_val x, const char *norm, branch_fn *branch) {
  double eps = b->o->eps;
  tt_val y = branch(b, b->o->norm_first ? tt_layer_norm(x, norm, 1, .eps = eps) : x);
  y = tt_add(x, tt_drop_path(tt_dropout(y, b->o->dropout), b->o->drop_path));
  return b->o->norm_first ? y : tt_layer_norm(y, norm, 1, .eps = eps);
}

static tt_val apply(const char *op, const char *name, tt_val x, block b, bool decoder) {
  tt_val args[2] = {x, b.memory};
  __attribute__((cleanup(trace_close))) tt_call call = trace_open(op, b.here, args, decoder ? 2 : 1);
  if (!call.g) DONE(0);
  if (tt_rank(x) != 3) WRONG("give [B, T, E]", "%s takes rank 3, not %d", name, tt_rank(x));
  if (b.o->activation < TT_ACT_RELU || b.o->activation > TT_ACT_SILU) WRONG("use TT_ACT_RELU, TT_ACT_GELU, TT_ACT_GELU_TANH or TT_ACT_SILU", "there is no activation %d", (int)b.o->activation);
  tt_scope_push(x, name);
  x = residual(&b, x, "norm1", self_attention);
  if (decoder) x = residual(&b, x, "norm2", cross_attention);
  x = residual(&b, x, decoder ? "norm3" : "norm2", feed_forward);
  tt_scope_pop(args[0]);
  return x;
}

tt_val tt_transformer_encoder_at(tt_here here, tt_val x, const char *name, int64_t heads, int64_t hidden, tt_transformer_options o) {
  return apply("transformer_encoder", name, x, (block){here, &o, heads, hidden, {0}}, false);
}

tt_val tt_transformer_decoder_at(tt_here here, tt_val x, tt_val memory, const char *name, int64_t heads, int64_t hidden, tt_transformer_options o) {
  return apply("transformer_decoder", name, x, (block){here, &o, heads, hidden, memory}, true);
}

/* The patches stand still while their pixels become rows; the weight is read as [d, C * patch * patch]. */
tt_val tt_patch_embedding_at(tt_here here, tt_val x, const char *name, int64_t patch, int64_t d) {
  OPEN("patch_embedding", here, x);
  if (tt_rank(x) != 4) WRONG("give images as [N, C, H, W]", "%s takes rank 4, not %d", name, tt_rank(x));
  if (!tt_dtype_in(tt_dtype_of(x), TT_REAL)) WRONG("use tt_cast to make it f32", "%s takes real numbers, not %s", name, tt_dtype_name(tt_dtype_of(x)));
  int64_t n = tt_dim(x, 0), c = tt_dim(x, 1), h = tt_dim(x, 2), w = tt_dim(x, 3), p = patch;
  if (p < 1 || h % p || w % p || h < p || w < p) WRONG("its height and width are multiples of the patch", "patches of %lld x %lld do not fill %lld x %lld", (long long)p, (long long)p, (long long)h, (long long)w);
  if (d < 1) WRONG("give the number of features of a patch", "%s makes %lld features", name, (long long)d);
  double bound = 1 / sqrt((double)(c * p * p));
  tt_scope_push(x, name);
  tt_scope_push(x, "proj");
  tt_val weight = tt_param(x, "weight", TT_SHAPE(d, c, p, p), tt_init_kaiming_uniform(sqrt(5))), bias = tt_param(x, "bias", TT_SHAPE(d), tt_init_uniform(-bound, bound));
  tt_scope_pop(x);
  tt_scope_pop(x);
  tt_val rows = tt_permute(tt_reshape(x, TT_SHAPE(n, c, h / p, p, w / p, p)), TT_AXES(0, 2, 4, 1, 3, 5));       /* [N,H/p,W/p,C,p,p] */
  return tt_f_linear(tt_reshape(rows, TT_SHAPE(n, h / p * (w / p), c * p * p)), tt_reshape(weight, TT_SHAPE(d, c * p * p)), bias);
}

/* wild_test.c: traces of random ops with random arguments, most of them wrong. Each must end in a graph that verifies, or in one error
 * of three parts, and leak nothing. The seed of a failure is printed. */
#include <criterion/criterion.h>
#include <string.h>

#include "frontend/tinytorch.h"
#include "ir/ir.h"

typedef struct { uint64_t state; } dice;
static int64_t roll(dice *d, int64_t low, int64_t high) {          /* low .. high */
  d->state = d->state * 6364136223846793005u + 1442695040888963407u;
  return low + (int64_t)((d->state >> 33) % (uint64_t)(high - low + 1));
}
static int axis(dice *d) { return (int)roll(d, -4, 4); }
static tt_shape shape(dice *d) {
  tt_shape s = {.rank = (int)roll(d, 0, 5)};
  for (int i = 0; i < s.rank; i++) s.dim[i] = roll(d, 0, 9) ? roll(d, 1, 6) : roll(d, -1, 0);
  return s;
}
static tt_ints ints(dice *d, int64_t low, int64_t high) {
  tt_ints v = {.n = (int)roll(d, 0, 5)};
  for (int i = 0; i < v.n; i++) v.v[i] = roll(d, low, high);
  return v;
}

enum { N_OPS = 58, N_VALUES = 12, N_TRACES = 3000 };

static tt_val op(dice *d, tt_val x, tt_val y, tt_val z) {
  tt_val v[3] = {x, y, z}, none = {0}, out[4] = {none, none, none, none};
  switch (roll(d, 0, N_OPS - 1)) {
  case 0: return tt_add(x, y);
  case 1: return tt_sub(1, x);
  case 2: return tt_where(tt_gt(x, 0), x, y);
  case 3: return tt_matmul(x, y);
  case 4: return tt_relu(x);
  case 5: return tt_softmax(x, axis(d));
  case 6: return tt_sum(x, ints(d, -4, 4), roll(d, 0, 1));
  case 7: return tt_reshape(x, shape(d));
  case 8: return tt_permute(x, ints(d, -3, 3));
  case 9: return tt_transpose(x, axis(d), axis(d));
  case 10: return tt_slice(x, axis(d), roll(d, -7, 7), roll(d, -7, 7), roll(d, 0, 3));
  case 11: return tt_pad(x, ints(d, -3, 3), (tt_pad_mode)roll(d, 0, 2), 1);
  case 12: return tt_concat(v, (int)roll(d, 1, 3), axis(d));
  case 13: return tt_stack(v, (int)roll(d, 1, 3), axis(d));
  case 14: tt_split(x, (int)roll(d, 1, 4), axis(d), out); return out[0];
  case 15: return tt_flip(x, ints(d, -4, 4));
  case 16: return tt_roll(x, ints(d, -9, 9), ints(d, -4, 4));
  case 17: return tt_repeat(x, ints(d, 0, 3));
  case 18: return tt_repeat_interleave(x, roll(d, -1, 3), axis(d));
  case 19: return tt_diagonal(x, roll(d, -7, 7), axis(d), axis(d));
  case 20: return tt_tril(x, roll(d, -7, 7));
  case 21: return tt_unfold(x, axis(d), roll(d, 0, 4), roll(d, 0, 3));
  case 22: return tt_pixel_shuffle(x, roll(d, 0, 2));
  case 23: return tt_gather(x, axis(d), tt_cast(y, TT_I32));
  case 24: return tt_scatter_add(x, axis(d), tt_cast(y, TT_I64), z);
  case 25: return tt_index_select(x, axis(d), tt_cast(y, TT_I64));
  case 26: return tt_one_hot(tt_cast(x, TT_I64), roll(d, 0, 5), TT_F32);
  case 27: tt_topk(x, roll(d, 0, 6), axis(d), roll(d, 0, 1), out, NULL); return out[0];
  case 28: return tt_einsum(roll(d, 0, 1) ? "ij,jk->ik" : "abc,ac->b", v, (int)roll(d, 1, 3));
  case 29: return tt_linear(x, roll(d, 0, 1) ? "fc" : "head", roll(d, 0, 5));
  case 30: return tt_conv2d(x, "conv", roll(d, 1, 4), roll(d, 0, 4), .stride = roll(d, 0, 2), .padding = roll(d, -1, 2), .dilation = roll(d, 0, 2), .groups = roll(d, 0, 3));
  case 31: return tt_f_conv(x, y, none, .padding = roll(d, 0, 2), .strides = {roll(d, 0, 2), 1, 1});
  case 32: return tt_max_pool2d(x, roll(d, 0, 4), .stride = roll(d, 0, 3), .padding = roll(d, 0, 2), .ceil_mode = roll(d, 0, 1));
  case 33: return tt_avg_pool2d(x, roll(d, 0, 4), .stride = roll(d, 0, 3), .padding = roll(d, 0, 2), .ceil_mode = roll(d, 0, 1));
  case 34: return tt_adaptive_avg_pool2d(x, roll(d, 0, 4), roll(d, 0, 4));
  case 35: return tt_batch_norm(x, "bn");
  case 36: return tt_layer_norm(x, "ln", (int)roll(d, 0, 3));
  case 37: return tt_f_group_norm(x, none, none, roll(d, 0, 3), 1e-5);
  case 38: return tt_dropout(x, (double)roll(d, 0, 4) / 3);
  case 39: return tt_self_attention(x, "attn", roll(d, 1, 4));
  case 40: return tt_cross_entropy(x, roll(d, 0, 1) ? y : tt_argmax(x, 1, false));
  case 41: return tt_mse(x, y, (tt_reduction)roll(d, 0, 3));
  case 42: return tt_cumprod(x, axis(d));
  case 43: return tt_var(x, ints(d, -4, 4), roll(d, 0, 2), false);
  case 44: return tt_logsumexp(x, ints(d, -4, 4), roll(d, 0, 1));
  case 45: return tt_glu(x, axis(d));
  case 46: return tt_cast(x, (tt_dtype)roll(d, 0, TT_N_DTYPES - 1));
  case 47: return tt_f_prelu(x, y);
  case 49: return tt_conv_transpose2d(x, "up", roll(d, 1, 4), roll(d, 0, 4), .stride = roll(d, 0, 3), .padding = roll(d, -1, 2), .output_padding = roll(d, -1, 2), .dilation = roll(d, 0, 2), .groups = roll(d, 0, 3));
  case 50: return tt_f_conv_transpose(x, y, none, .padding = roll(d, 0, 2), .strides = {roll(d, 0, 2), 1, 1});
  case 51: return tt_interpolate(x, roll(d, 0, 5), roll(d, 0, 5), .mode = (tt_interpolate_mode)roll(d, -1, 3), .align_corners = roll(d, 0, 1));
  case 52: return tt_f_attention(x, y, z, .causal = roll(d, 0, 1), .mask = roll(d, 0, 1) ? none : y);
  case 53: return tt_multi_head_attention(x, y, "mha", roll(d, 0, 3));
  case 54: return tt_rotary_embedding(x, .interleaved = roll(d, 0, 1), .base = (double)roll(d, -1, 3));
  case 55: return tt_f_embedding_bag(tt_cast(x, TT_I32), y, (tt_bag_mode)roll(d, -1, 3));
  case 56: return tt_embedding(tt_cast(x, TT_I32), "emb", roll(d, 0, 4), roll(d, 0, 4));
  case 48: return tt_multi_margin(x, tt_argmax(x, axis(d), false), 1, TT_MEAN);
  default: return tt_cosine_embedding(x, y, tt_select(x, axis(d), 0), 0, TT_SUM);
  }
}

Test(wild, random_calls) {
  static const char *const names[] = {"x", "y", "z"};
  int good = 0, wrong = 0;
  for (uint64_t seed = 0; seed < N_TRACES; seed++) {
    dice d = {seed * 7919 + 1};
    tt_error err = {0};
    ir_graph *g = NULL;
    tt_trace *t = tt_trace_new("wild", seed & 1);
    tt_val v[N_VALUES], grad;
    for (int i = 0; i < 3; i++) {
      tt_shape s = shape(&d);
      for (int k = 0; k < s.rank; k++) s.dim[k] = s.dim[k] < 0 ? 1 : s.dim[k];
      v[i] = tt_input(t, names[i], roll(&d, 0, 9) ? TT_F32 : TT_I64, s);
    }
    for (int i = 3; i < N_VALUES; i++) {
      v[i] = op(&d, v[roll(&d, 0, i - 1)], v[roll(&d, 0, i - 1)], v[roll(&d, 0, i - 1)]);
      if (!tt_ok(v[i])) break;
      if (i < N_VALUES - 1 && roll(&d, 0, 3)) continue;
      tt_grad(tt_sum(tt_cast(v[i], TT_F32), TT_ALL, false), &v[0], tt_dtype_of(v[0]) == TT_F32, &grad);
      tt_output(t, "out", v[i]);
      break;
    }
    tt_status status = tt_trace_finish(t, &g, &err);
    if (status == TT_OK) {
      cr_expect_eq(ir_verify(g, "trace", &err), TT_OK, "seed %llu: %s", (unsigned long long)seed, err.message);
      good++;
    } else {
      const char *at = strstr(err.message, "\n  at "), *fix = strstr(err.message, "\n  fix: ");
      cr_expect(status == TT_INVALID && !strncmp(err.message, "error: ", 7) && at && fix && at < fix, "seed %llu, status %d: %s", (unsigned long long)seed, (int)status, err.message);
      wrong++;
    }
    ir_graph_free(g);
    tt_trace_free(t);
  }
  cr_expect(good > N_TRACES / 20 && wrong > N_TRACES / 4, "%d good, %d wrong", good, wrong);
}

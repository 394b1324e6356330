/* reference_ops.c: torch.nn.functional's names and attributes, each as one call of ours. */
#include <math.h>
#include <string.h>

#include "reference.h"

#define IN(name) reference_in(c, name)
#define X IN("x")
#define NUMBER(name, otherwise) reference_number(c, name, otherwise)
#define INT(name, otherwise) ((int64_t)reference_number(c, name, otherwise))
#define FLAG(name) reference_flag(c, name)
#define LIST(name) reference_ints(c, name)
#define CASE(name) static int name(reference_case *c, reference_output *out)
#define GIVES(value_) return out[0] = (reference_output){"y", value_}, 1

/* Ops of x alone, of a and b, and of x and an axis: the whole body is the call. */
#define UNARY(name) CASE(do_##name) { GIVES(tt_##name(X)); }
#define BINARY(name) CASE(do_##name) { GIVES(tt_##name(IN("a"), IN("b"))); }
#define REDUCE(name) CASE(do_##name) { GIVES(tt_##name(X, LIST("axis"), FLAG("keepdim"))); }
#define ALONG(name) CASE(do_##name) { GIVES(tt_##name(X, (int)INT("axis", -1))); }
#define UNARY_OPS(F) \
  F(abs) F(exp) F(expm1) F(log) F(log1p) F(log2) F(sqrt) F(rsqrt) F(square) F(reciprocal) F(sin) F(cos) F(tanh) F(erf) F(relu) F(relu6) F(selu) F(silu) F(mish) F(sigmoid) \
  F(log_sigmoid) F(hardswish) F(hardsigmoid) F(softsign) F(tanhshrink)
#define BINARY_OPS(F) F(add) F(sub) F(mul) F(div) F(maximum) F(minimum) F(atan2) F(hypot) F(pow) F(fmod) F(matmul)
#define REDUCE_OPS(F) F(sum) F(mean) F(amax) F(amin) F(prod) F(logsumexp)
#define ALONG_OPS(F) F(softmax) F(log_softmax) F(glu) F(cumsum) F(cumprod)
UNARY_OPS(UNARY)
BINARY_OPS(BINARY)
REDUCE_OPS(REDUCE)
ALONG_OPS(ALONG)

CASE(do_gelu) { GIVES(tt_gelu(X, strcmp(reference_text(c, "approximate"), "tanh") == 0)); }
CASE(do_elu) { GIVES(tt_elu(X, NUMBER("alpha", 1))); }
CASE(do_leaky_relu) { GIVES(tt_leaky_relu(X, NUMBER("negative_slope", 0.01))); }
CASE(do_softplus) { GIVES(tt_softplus(X, NUMBER("beta", 1), NUMBER("threshold", 20))); }
CASE(do_hardtanh) { GIVES(tt_hardtanh(X, NUMBER("min", -1), NUMBER("max", 1))); }
CASE(do_clamp) { GIVES(tt_clamp(X, NUMBER("min", -INFINITY), NUMBER("max", INFINITY))); }
CASE(do_prelu) { GIVES(tt_f_prelu(X, IN("w"))); }
CASE(do_swiglu) { GIVES(tt_f_swiglu(X, IN("w"), IN("v"), IN("o"))); }
CASE(do_where) { GIVES(tt_where(IN("c"), IN("a"), IN("b"))); }

static tt_conv_options conv_options(reference_case *c) {
  return (tt_conv_options){.stride = INT("stride", 1), .padding = INT("padding", 0), .dilation = INT("dilation", 1), .groups = INT("groups", 1)};
}
CASE(do_conv_transpose2d) {
  tt_conv_options o = conv_options(c);
  o.output_padding = INT("output_padding", 0);
  GIVES(tt_f_conv_transpose_at(TT_HERE, X, IN("w"), IN("b"), o));
}
CASE(do_interpolate) {
  tt_ints size = LIST("size");
  const char *mode = reference_text(c, "mode");
  GIVES(tt_interpolate(X, size.v[0], size.v[size.n - 1], .mode = strcmp(mode, "nearest") == 0 ? TT_NEAREST : strcmp(mode, "bilinear") == 0 ? TT_BILINEAR : TT_BICUBIC, .align_corners = FLAG("align_corners")));
}
CASE(do_conv) { GIVES(tt_f_conv_at(TT_HERE, X, IN("w"), IN("b"), conv_options(c))); }
static tt_pool_options pool_options(reference_case *c) {
  return (tt_pool_options){.stride = INT("stride", 0), .padding = INT("padding", 0), .dilation = INT("dilation", 1), .ceil_mode = FLAG("ceil_mode"),
                           .no_count_include_pad = json_is_false(json_object_get(c->attrs, "count_include_pad"))};
}
CASE(do_max_pool2d) { GIVES(tt_max_pool2d_at(TT_HERE, X, INT("kernel_size", 2), pool_options(c))); }
CASE(do_avg_pool2d) { GIVES(tt_avg_pool2d_at(TT_HERE, X, INT("kernel_size", 2), pool_options(c))); }
CASE(do_adaptive_avg_pool2d) {
  tt_ints size = LIST("output_size");
  GIVES(tt_adaptive_avg_pool2d(X, size.v[0], size.v[size.n - 1]));
}
CASE(do_pixel_shuffle) { GIVES(tt_pixel_shuffle(X, INT("upscale_factor", 2))); }
CASE(do_pad) {
  const char *mode = reference_text(c, "mode");
  GIVES(tt_pad(X, LIST("pad"), strcmp(mode, "replicate") == 0 ? TT_PAD_REPLICATE : strcmp(mode, "reflect") == 0 ? TT_PAD_REFLECT : TT_PAD_CONSTANT, 0));
}

CASE(do_batch_norm) {
  out[0].name = "y", out[1].name = "running_mean", out[2].name = "running_var";
  out[0].value = tt_f_batch_norm(X, IN("w"), IN("b"), IN("mean"), IN("var"), FLAG("training"), NUMBER("momentum", 0.1), NUMBER("eps", 1e-5), &out[1].value, &out[2].value);
  return 3;
}
CASE(do_layer_norm) { GIVES(tt_f_layer_norm(X, IN("w"), IN("b"), LIST("normalized_shape").n, NUMBER("eps", 1e-5))); }
CASE(do_group_norm) { GIVES(tt_f_group_norm(X, IN("w"), IN("b"), INT("num_groups", 1), NUMBER("eps", 1e-5))); }
CASE(do_instance_norm) { GIVES(tt_f_instance_norm(X, IN("w"), IN("b"), NUMBER("eps", 1e-5))); }
CASE(do_rms_norm) { GIVES(tt_f_rms_norm(X, IN("w"), 1, NUMBER("eps", 1e-5))); }
CASE(do_vector_norm) { GIVES(tt_vector_norm(X, NUMBER("ord", 2), LIST("axis"), false)); }
CASE(do_scaled_dot_product_attention) { GIVES(tt_f_attention(IN("q"), IN("k"), IN("v"), .scale = NUMBER("scale", 0), .causal = FLAG("is_causal"), .mask = IN("mask"))); }
CASE(do_multi_head_attention) {
  GIVES(tt_f_multi_head_attention(IN("q"), IN("kv"), IN("w_in"), IN("b_in"), IN("w_out"), IN("b_out"), INT("num_heads", 1), .causal = FLAG("is_causal")));
}
CASE(do_rotary_embedding) { GIVES(tt_rotary_embedding(X, .base = NUMBER("base", 0), .interleaved = strcmp(reference_text(c, "convention"), "halves") != 0)); }
CASE(do_embedding) { GIVES(tt_f_embedding(IN("i"), IN("w"))); }
CASE(do_embedding_bag) {
  const char *mode = reference_text(c, "mode");
  GIVES(tt_f_embedding_bag(IN("i"), IN("w"), strcmp(mode, "sum") == 0 ? TT_BAG_SUM : strcmp(mode, "max") == 0 ? TT_BAG_MAX : TT_BAG_MEAN));
}

static int recurrent(reference_case *c, reference_output *out, tt_cell cell) {
  tt_recurrent_state s = tt_f_recurrent(cell, X, IN("h0"), IN("c0"), IN("w_ih"), IN("w_hh"), IN("b_ih"), IN("b_hh"), false);
  out[0] = (reference_output){"y", s.y}, out[1] = (reference_output){"h", s.h}, out[2] = (reference_output){"c", s.c};
  return cell == TT_LSTM ? 3 : 2;
}
CASE(do_lstm) { return recurrent(c, out, TT_LSTM); }
CASE(do_gru) { return recurrent(c, out, TT_GRU); }
CASE(do_rnn_tanh) { return recurrent(c, out, TT_RNN_TANH); }

static tt_reduction reduction(reference_case *c) {
  const char *r = reference_text(c, "reduction");
  return strcmp(r, "sum") == 0 ? TT_SUM : strcmp(r, "none") == 0 ? TT_NONE : strcmp(r, "batchmean") == 0 ? TT_BATCHMEAN : TT_MEAN;
}
CASE(do_cross_entropy) {
  GIVES(tt_cross_entropy(IN("logits"), IN("target"), .weight = IN("weight"), .ignoring = json_object_get(c->attrs, "ignore_index") != NULL,
                         .ignore_index = INT("ignore_index", -100), .label_smoothing = NUMBER("label_smoothing", 0)));
}
CASE(do_mse) { GIVES(tt_mse(X, IN("y"), reduction(c))); }
CASE(do_l1) { GIVES(tt_l1(X, IN("y"), reduction(c))); }
CASE(do_huber) { GIVES(tt_huber(X, IN("y"), NUMBER("delta", 1), reduction(c))); }
CASE(do_smooth_l1) { GIVES(tt_smooth_l1(X, IN("y"), NUMBER("beta", 1), reduction(c))); }
CASE(do_bce) { GIVES(tt_binary_cross_entropy(X, IN("y"), reduction(c))); }
CASE(do_bce_logits) { GIVES(tt_binary_cross_entropy_with_logits(X, IN("y"), IN("weight"), IN("pos_weight"), reduction(c))); }
CASE(do_kl_div) { GIVES(tt_kl_div(X, IN("y"), FLAG("log_target"), reduction(c))); }
CASE(do_hinge_embedding) { GIVES(tt_hinge_embedding(X, IN("y"), NUMBER("margin", 1), reduction(c))); }
CASE(do_cosine_embedding) { GIVES(tt_cosine_embedding(IN("a"), IN("b"), IN("y"), NUMBER("margin", 0), reduction(c))); }
CASE(do_triplet_margin) { GIVES(tt_triplet_margin(IN("a"), IN("b"), IN("c"), NUMBER("margin", 1), NUMBER("p", 2), reduction(c))); }
CASE(do_multi_margin) { GIVES(tt_multi_margin(X, IN("y"), NUMBER("margin", 1), reduction(c))); }
CASE(do_gaussian_nll) { GIVES(tt_gaussian_nll(X, IN("y"), IN("var"), FLAG("full"), 1e-6, reduction(c))); }
CASE(do_poisson_nll) { GIVES(tt_poisson_nll(X, IN("y"), FLAG("log_input"), FLAG("full"), 1e-8, reduction(c))); }

CASE(do_linear) { GIVES(tt_f_linear(X, IN("w"), IN("b"))); }
CASE(do_einsum) { GIVES(tt_einsum(reference_text(c, "equation"), c->values, c->n)); }
CASE(do_var) { GIVES(tt_var(X, LIST("axis"), INT("correction", 1), FLAG("keepdim"))); }
CASE(do_std) { GIVES(tt_std(X, LIST("axis"), INT("correction", 1), FLAG("keepdim"))); }
CASE(do_argmax) { GIVES(tt_argmax(X, (int)INT("axis", -1), FLAG("keepdim"))); }
CASE(do_argmin) { GIVES(tt_argmin(X, (int)INT("axis", -1), FLAG("keepdim"))); }

CASE(do_topk) {
  out[0].name = "values", out[1].name = "indices";
  tt_topk(X, INT("k", 1), (int)INT("axis", -1), true, &out[0].value, &out[1].value);
  return 2;
}
CASE(do_sort) {
  out[0].name = "values", out[1].name = "indices";
  tt_sort(X, (int)INT("axis", -1), FLAG("descending"), &out[0].value, &out[1].value);
  return 2;
}
CASE(do_gather) { GIVES(tt_gather(X, (int)INT("axis", 0), IN("i"))); }
CASE(do_scatter_add) { GIVES(tt_scatter_add(X, (int)INT("axis", 0), IN("i"), IN("src"))); }
CASE(do_index_select) { GIVES(tt_index_select(X, (int)INT("axis", 0), IN("i"))); }
CASE(do_roll) { GIVES(tt_roll(X, LIST("shifts"), LIST("axis"))); }
CASE(do_flip) { GIVES(tt_flip(X, LIST("axis"))); }
CASE(do_permute) { GIVES(tt_permute(X, LIST("dims"))); }
CASE(do_tril) { GIVES(tt_tril(X, INT("diagonal", 0))); }
CASE(do_triu) { GIVES(tt_triu(X, INT("diagonal", 0))); }
CASE(do_diagonal) { GIVES(tt_diagonal(X, INT("offset", 0), (int)INT("axis1", 0), (int)INT("axis2", 1))); }
CASE(do_repeat) { GIVES(tt_repeat(X, LIST("repeats"))); }
CASE(do_repeat_interleave) { GIVES(tt_repeat_interleave(X, INT("repeats", 1), (int)INT("axis", 0))); }
CASE(do_unfold) { GIVES(tt_unfold(X, (int)INT("axis", 0), INT("size", 1), INT("step", 1))); }
CASE(do_strided_slice) {
  json_t *start = json_object_get(c->attrs, "start"), *stop = json_object_get(c->attrs, "stop"), *step = json_object_get(c->attrs, "step");
  tt_val y = X;
  for (size_t i = 0; i < json_array_size(start); i++) {
    json_t *from = json_array_get(start, i), *to = json_array_get(stop, i);
    y = tt_slice(y, (int)i, json_is_null(from) ? 0 : json_integer_value(from), json_is_null(to) ? TT_END : json_integer_value(to), json_integer_value(json_array_get(step, i)));
  }
  GIVES(y);
}

static const struct { const char *name; reference_fn *run; } ops[] = {
#define ROW(name) {#name, do_##name},
  UNARY_OPS(ROW) BINARY_OPS(ROW) REDUCE_OPS(ROW) ALONG_OPS(ROW)
  ROW(gelu) ROW(elu) ROW(leaky_relu) ROW(softplus) ROW(hardtanh) ROW(clamp) ROW(prelu) ROW(swiglu) ROW(where)
  {"conv1d", do_conv}, {"conv2d", do_conv}, {"conv3d", do_conv},
  ROW(max_pool2d) ROW(avg_pool2d) ROW(adaptive_avg_pool2d) ROW(pixel_shuffle) ROW(pad)
  ROW(batch_norm) ROW(layer_norm) ROW(group_norm) ROW(instance_norm) ROW(rms_norm) ROW(vector_norm) ROW(scaled_dot_product_attention)
  ROW(multi_head_attention) ROW(rotary_embedding) ROW(embedding) ROW(embedding_bag) ROW(conv_transpose2d) ROW(interpolate)
  ROW(cross_entropy) {"cross_entropy_probabilities", do_cross_entropy}, ROW(mse) ROW(l1) ROW(huber) ROW(smooth_l1) {"binary_cross_entropy", do_bce},
  {"binary_cross_entropy_with_logits", do_bce_logits}, ROW(kl_div) ROW(hinge_embedding) ROW(cosine_embedding) ROW(triplet_margin) ROW(multi_margin) ROW(gaussian_nll) ROW(poisson_nll)
  ROW(linear) ROW(einsum) ROW(var) ROW(std) ROW(argmax) ROW(argmin) ROW(topk) ROW(sort) ROW(gather) ROW(scatter_add) ROW(index_select) ROW(roll) ROW(flip) ROW(permute)
  ROW(lstm) ROW(gru) ROW(rnn_tanh) ROW(tril) ROW(triu) ROW(diagonal) ROW(repeat) ROW(repeat_interleave) ROW(unfold) ROW(strided_slice)
#undef ROW
};

reference_fn *reference_op(const char *op) {
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
    if (strcmp(ops[i].name, op) == 0) return ops[i].run;
  return NULL;
}

tt_val reference_in(const reference_case *c, const char *name) {
  for (int i = 0; i < c->n; i++)
    if (strcmp(c->names[i], name) == 0) return c->values[i];
  return (tt_val){0};
}
double reference_number(const reference_case *c, const char *attr, double otherwise) {
  json_t *v = json_object_get(c->attrs, attr);
  return json_is_number(v) ? json_number_value(v) : otherwise;
}
bool reference_flag(const reference_case *c, const char *attr) { return json_is_true(json_object_get(c->attrs, attr)); }
const char *reference_text(const reference_case *c, const char *attr) {
  const char *text = json_string_value(json_object_get(c->attrs, attr));
  return text ? text : "";
}
tt_ints reference_ints(const reference_case *c, const char *attr) {
  json_t *v = json_object_get(c->attrs, attr);
  tt_ints list = {0};
  if (json_is_integer(v)) list = TT_INTS(json_integer_value(v));
  for (size_t i = 0; i < json_array_size(v) && i < 16; i++) list.v[list.n++] = json_integer_value(json_array_get(v, i));
  return list;
}

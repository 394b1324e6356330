/* errors_test.c: wrong models. Each is traced, must end in one error of three parts, and must say what tests/errors/NAME.txt says;
 * TT_UPDATE=1 writes those files anew. #line gives every model a file of its own, so that the messages do not move. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/tinytorch.h"
#include "ir/ir.h"

/* x: f32[8,3,32,32] */
#define WRONG(name) static tt_val name(tt_val x, void *arg)

#line 1 "matmul_inner.c"
WRONG(matmul_inner) {
  tt_val h = tt_relu(tt_linear(tt_flatten(x, 1), "fc1", 128));
  return tt_matmul(h, tt_param(x, "w2", TT_SHAPE(64, 10), tt_init_zeros()));
}
#line 1 "matmul_transposed.c"
WRONG(matmul_transposed) {
  tt_val h = tt_relu(tt_linear(tt_flatten(x, 1), "fc1", 128));
  return tt_matmul(h, tt_param(x, "w2", TT_SHAPE(10, 128), tt_init_zeros()));
}
#line 1 "matmul_batch.c"
WRONG(matmul_batch) {
  return tt_matmul(x, tt_param(x, "w", TT_SHAPE(2, 32, 4), tt_init_zeros()));
}
#line 1 "matmul_scalar.c"
WRONG(matmul_scalar) {
  return tt_matmul(x, tt_scalar(x, 2));
}
#line 1 "add_broadcast.c"
WRONG(add_broadcast) {
  tt_scope_push(x, "block");
  tt_val b = tt_param(x, "bias", TT_SHAPE(3), tt_init_zeros());
  x = tt_add(x, b);
  tt_scope_pop(x);
  return x;
}
#line 1 "add_types.c"
WRONG(add_types) {
  return tt_add(x, tt_cast(x, TT_F64));
}
#line 1 "exp_of_integers.c"
WRONG(exp_of_integers) {
  return tt_exp(tt_argmax(x, 1, false));
}
#line 1 "where_condition.c"
WRONG(where_condition) {
  return tt_where(x, x, 0);
}
#line 1 "softmax_axis.c"
WRONG(softmax_axis) {
  return tt_softmax(tt_flatten(x, 1), 2);
}
#line 1 "sum_axis_twice.c"
WRONG(sum_axis_twice) {
  return tt_sum(x, TT_AXES(1, -3), false);
}
#line 1 "missing_value.c"
WRONG(missing_value) {
  tt_val mask = {0};
  return tt_mul(x, mask);
}
#line 1 "missing_result.c"
WRONG(missing_result) {
  (void)x;
  return (tt_val){0};
}
#line 1 "reused_name.c"
WRONG(reused_name) {
  x = tt_flatten(x, 1);
  x = tt_relu(tt_linear(x, "fc", 64));
  return tt_linear(x, "fc", 10);
}
#line 1 "reused_input.c"
WRONG(reused_input) {
  return tt_add(x, tt_input(x.trace, "x", TT_F32, TT_SHAPE(8, 3, 32, 32)));
}
#line 1 "conv_rank.c"
WRONG(conv_rank) {
  return tt_conv2d(tt_flatten(x, 1), "conv1", 16, 3);
}
#line 1 "conv_groups.c"
WRONG(conv_groups) {
  return tt_conv2d(x, "conv1", 16, 3, .groups = 2);
}
#line 1 "conv_padding.c"
WRONG(conv_padding) {
  return tt_conv2d(x, "conv1", 16, 3, .padding = -1);
}
#line 1 "conv_window.c"
WRONG(conv_window) {
  return tt_conv2d(x, "conv1", 16, 5, .dilation = 9);
}
#line 1 "conv_weight.c"
WRONG(conv_weight) {
  tt_val w = tt_param(x, "w", TT_SHAPE(16, 4, 3, 3), tt_init_zeros()), none = {0};
  return tt_f_conv(x, w, none);
}
#line 1 "pool_padding.c"
WRONG(pool_padding) {
  return tt_max_pool2d(x, 2, .padding = 2);
}
#line 1 "linear_features.c"
WRONG(linear_features) {
  tt_val w = tt_param(x, "w", TT_SHAPE(10, 100), tt_init_zeros()), none = {0};
  return tt_f_linear(tt_flatten(x, 1), w, none);
}
#line 1 "attention_rank.c"
WRONG(attention_rank) {
  return tt_self_attention(x, "attn", 64);
}
#line 1 "reshape_count.c"
WRONG(reshape_count) {
  return tt_reshape(x, TT_SHAPE(8, 1000));
}
#line 1 "permute_axes.c"
WRONG(permute_axes) {
  return tt_permute(x, TT_AXES(0, 2, 3));
}
#line 1 "concat_sizes.c"
WRONG(concat_sizes) {
  tt_val parts[] = {x, tt_slice(x, 2, 0, 16, 1)};
  return tt_concat(parts, 2, 1);
}
#line 1 "select_index.c"
WRONG(select_index) {
  return tt_select(x, 1, 3);
}
#line 1 "einsum_letters.c"
WRONG(einsum_letters) {
  tt_val xs[] = {x, x};
  return tt_einsum("nchw,nc->nhw", xs, 2);
}
#line 1 "cross_entropy_labels.c"
WRONG(cross_entropy_labels) {
  tt_val logits = tt_linear(tt_flatten(x, 1), "fc", 10);
  return tt_cross_entropy(logits, tt_argmax(x, 1, false));
}
#line 1 "cross_entropy_real_labels.c"
WRONG(cross_entropy_real_labels) {
  tt_val logits = tt_linear(tt_flatten(x, 1), "fc", 10);
  return tt_cross_entropy(logits, tt_select(tt_flatten(x, 1), 1, 0));
}
#line 1 "mse_shapes.c"
WRONG(mse_shapes) {
  tt_val y = tt_linear(tt_flatten(x, 1), "fc", 1);
  return tt_mse(y, tt_squeeze(y, 1), TT_MEAN);
}
#line 1 "dropout_probability.c"
WRONG(dropout_probability) {
  return tt_dropout(x, 50);
}
#line 1 "grad_of_tensor.c"
WRONG(grad_of_tensor) {
  tt_val g;
  tt_grad(tt_square(x), &x, 1, &g);
  return g;
}
#line 1 "assign_to_input.c"
WRONG(assign_to_input) {
  tt_assign(x, tt_mul(x, 2));
  return x;
}
#line 1 "scope_left_open.c"
WRONG(scope_left_open) {
  tt_scope_push(x, "encoder");
  return tt_relu(x);
}
#line 1 "first_error_stays.c"
WRONG(first_error_stays) {
  tt_val h = tt_reshape(x, TT_SHAPE(7));
  h = tt_conv2d(h, "conv1", 16, 3);
  return tt_add(h, tt_softmax(x, 9));
}
#line 1 "batch_norm_one_value.c"
WRONG(batch_norm_one_value) {
  return tt_batch_norm(tt_flatten(tt_slice(x, 0, 0, 1, 1), 1), "bn");
}
#line 1 "init_fans.c"
WRONG(init_fans) {
  return tt_mul(x, tt_param(x, "gain", TT_SHAPE(32), tt_init_xavier_uniform(1)));
}

#line 1 "output_name.c"
WRONG(output_name) {
  tt_output(x.trace, "x", tt_relu(x));
  return x;
}

#line 200 "errors_test.c"
typedef struct { const char *name; tt_val (*function)(tt_val, void *); } wrong_model;
#define ROW(name) {#name, name}
static const wrong_model models[] = {
    ROW(matmul_inner), ROW(matmul_transposed), ROW(matmul_batch), ROW(matmul_scalar), ROW(add_broadcast), ROW(add_types), ROW(exp_of_integers),
    ROW(where_condition), ROW(softmax_axis), ROW(sum_axis_twice), ROW(missing_value), ROW(missing_result), ROW(reused_name), ROW(reused_input),
    ROW(conv_rank), ROW(conv_groups), ROW(conv_padding), ROW(conv_window), ROW(conv_weight), ROW(pool_padding), ROW(linear_features),
    ROW(attention_rank), ROW(reshape_count), ROW(permute_axes), ROW(concat_sizes), ROW(select_index), ROW(einsum_letters), ROW(cross_entropy_labels),
    ROW(cross_entropy_real_labels), ROW(mse_shapes), ROW(dropout_probability), ROW(grad_of_tensor), ROW(assign_to_input), ROW(scope_left_open),
    ROW(first_error_stays), ROW(batch_norm_one_value), ROW(init_fans), ROW(output_name)};

static void check(const wrong_model *m) {
  char path[512], want[2048] = "";
  tt_error err = {0};
  ir_graph *g = NULL;
  tt_trace *t = tt_trace_new(m->name, true);
  tt_val x = tt_input_at((tt_here){"model.c", 1}, t, "x", TT_F32, TT_SHAPE(8, 3, 32, 32));
  tt_output_at((tt_here){"model.c", 2}, t, "y", m->function(x, NULL));
  tt_status status = tt_trace_finish(t, &g, &err);
  cr_assert_eq(status, TT_INVALID, "%s gave status %d", m->name, (int)status);
  cr_assert_null(g);
  tt_trace_free(t);
  const char *at = strstr(err.message, "\n  at "), *fix = strstr(err.message, "\n  fix: ");
  cr_expect(!strncmp(err.message, "error: ", 7) && at && fix && at < fix, "%s is not in three parts:\n%s", m->name, err.message);

  snprintf(path, sizeof path, "%s/tests/errors/%s.txt", TT_SOURCE_DIR, m->name);
  FILE *f;
  if (getenv("TT_UPDATE") && (f = fopen(path, "w"))) {
    fprintf(f, "%s\n", err.message);
    fclose(f);
  }
  f = fopen(path, "r");
  cr_assert_not_null(f, "%s is missing; TT_UPDATE=1 writes it", path);
  size_t n = fread(want, 1, sizeof want - 1, f);
  fclose(f);
  while (n && want[n - 1] == '\n') want[--n] = 0;
  cr_expect_str_eq(err.message, want, "%s says\n%s\nbut the golden file says\n%s", m->name, err.message, want);
}

Test(errors, wrong_models) {
  for (size_t i = 0; i < sizeof models / sizeof *models; i++) check(&models[i]);
}

/* A value of one trace in another. */
Test(errors, other_trace) {
  tt_error err = {0};
  ir_graph *g;
  tt_trace *a = tt_trace_new("a", false), *b = tt_trace_new("b", false);
  tt_val x = tt_input(a, "x", TT_F32, TT_SHAPE(2)), y = tt_input(b, "y", TT_F32, TT_SHAPE(2));
  tt_output(a, "z", tt_add(x, y));
  cr_assert_eq(tt_trace_finish(a, &g, &err), TT_INVALID);
  cr_expect(strstr(err.message, "value of another trace"), "%s", err.message);
  tt_trace_free(a);
  tt_trace_free(b);
}

/* No trace at all: nothing happens, and poison comes back. */
Test(errors, no_trace) {
  tt_val none = {0}, y = tt_relu(tt_conv2d(tt_add(none, none), "c", 3, 3));
  cr_expect(!tt_ok(y));
  cr_expect_eq(tt_rank(y), 0);
  tt_scope_push(none, "a");
  tt_scope_pop(none);
}

static tt_val twice(tt_val x, void *arg) { (void)arg; return tt_softmax(tt_linear(tt_flatten(x, 1), "fc", 10), 1); }

/* A softmax that is fed to cross_entropy: its logits are used, and the trace says so with both lines. */
Test(errors, softmax_twice) {
  tt_error err = {0};
  ir_graph *g = NULL;
  tt_trace *t = tt_trace_new("twice", true);
  tt_val x = tt_input(t, "x", TT_F32, TT_SHAPE(8, 4)), y = tt_input(t, "y", TT_I32, TT_SHAPE(8));
#line 300 "errors_test.c"
  tt_output(t, "loss", tt_cross_entropy(twice(x, NULL), y));
  cr_assert_eq(tt_trace_finish(t, &g, &err), TT_OK, "%s", err.message);
  const char *warning = tt_trace_warning(t, 0);
  cr_assert_not_null(warning);
  cr_expect_null(tt_trace_warning(t, 1));
  cr_expect(strstr(warning, "errors_test.c:300") && strstr(warning, "softmax at errors_test.c:2"), "%s", warning);
  for (uint32_t i = 1; i < g->n_nodes; i++)
    if (ir_at(g, i)->op == IR_log_softmax) cr_expect_eq(ir_at(g, ir_at(g, i)->args[0])->op, IR_add);
  ir_graph_free(g);
  tt_trace_free(t);
}

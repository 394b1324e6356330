/* graph_test.c: rows and how they are made: equal rows are one, constants fold, mistakes read well, and what must never be built is not. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "ir/ir.h"

#define S(...) ((tt_shape){.rank = sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), .dim = {__VA_ARGS__}})
static ir_graph *g;
static void open_graph(void) { g = ir_graph_new("test"); }
static void close_graph(void) {
  tt_error err = {0};
  if (g->error.status == TT_OK) cr_expect_eq(ir_verify(g, "building", &err), TT_OK, "%s", err.message);
  ir_graph_free(g);
}
TestSuite(graph, .init = open_graph, .fini = close_graph);

static void at(const char *file, int line, const char *scope) { g->at_origin = ir_origin_add(g, file, line, scope, 0); }
static ir_ref f32(const char *name, tt_shape s) { return ir_input(g, name, TT_F32, s); }
static double value(ir_ref r) {
  double v = NAN;
  cr_expect(ir_is_splat(g, r, &v));
  return v;
}
static void expect_mistake(ir_ref r, const char *message) {
  cr_expect_eq(r, 0);
  cr_expect_str_eq(g->error.message, message);
  cr_expect_eq(g->error.status, TT_INVALID);
  memset(&g->error, 0, sizeof g->error);
}

Test(graph, equal_rows_are_one_and_keep_both_origins) {
  ir_ref x = f32("x", S(2, 3));
  at("a.c", 1, "enc");
  ir_ref a = ir_ew1(g, IR_exp, x);
  at("b.c", 2, NULL);
  ir_ref b = ir_ew1(g, IR_exp, x);
  at("a.c", 1, "enc");
  ir_ew1(g, IR_exp, x);
  cr_expect_eq(a, b);
  ir_origin o = g->origins[ir_at(g, a)->origin], p = g->origins[o.next];
  cr_expect_str_eq(o.file, "a.c");
  cr_expect_str_eq(o.scope, "enc");
  cr_expect_str_eq(p.file, "b.c");
  cr_expect_eq(p.line, 2);
  cr_expect_eq(p.next, 0);
  cr_expect_neq(ir_ew1(g, IR_log, x), a);
  cr_expect_neq(ir_matmul(g, x, x, true, false, 1), ir_matmul(g, x, x, false, true, 1));
}

Test(graph, rows_of_other_kernels_do_not_merge) {
  ir_ref x = f32("x", S(2)), a = ir_ew1(g, IR_exp, x);
  g->at_region = ir_kernel_add(g, "k");
  ir_ref b = ir_ew1(g, IR_exp, x);
  cr_expect_neq(a, b);
  cr_expect_eq(ir_ew1(g, IR_exp, x), b);
  cr_expect_eq(f32("x", S(2)), x, "inputs stay outside");
  ir_kernel_plan(g, 1, "tile", (int64_t[]){6, 16}, 2);
  ir_kernel_plan(g, 1, "tile", (int64_t[]){4}, 1);
  uint32_t n;
  cr_expect_eq(ir_kernel_get(g, 1, "tile", &n)[0], 4);
  cr_expect_eq(n, 1);
  cr_expect_null(ir_kernel_get(g, 1, "lanes", &n));
}

Test(graph, constants_fold) {
  ir_ref two = ir_scalar(g, TT_F32, 2), six = ir_ew2(g, IR_mul, two, ir_scalar(g, TT_F32, 3));
  cr_expect_eq(ir_at(g, six)->op, IR_const);
  cr_expect_float_eq(value(six), 6, 0);
  ir_ref full = ir_full(g, TT_F32, S(1000, 1000), 4), root = ir_ew1(g, IR_sqrt, ir_ew2(g, IR_add, full, ir_scalar(g, TT_F32, 5)));
  cr_expect_eq(ir_at(g, root)->op, IR_broadcast, "a splat stays a broadcast number");
  cr_expect_float_eq(value(root), 3, 0);
  cr_expect_eq(ir_reshape(g, root, S(-1)), ir_full(g, TT_F32, S(1000000), 3));
  ir_ref v = ir_const(g, TT_I32, S(2, 3), (int32_t[]){1, 2, 3, 4, 5, 6}), s = ir_reduce(g, IR_sum, v, (int[]){-1}, 1, true);
  cr_expect_eq(s, ir_const(g, TT_I32, S(2, 1), (int32_t[]){6, 15}));
  cr_expect_float_eq(value(ir_cast(g, ir_full(g, TT_F64, S(3), -1.5), TT_I8)), -1, 0);
  cr_expect_float_eq(value(ir_ew2(g, IR_lt, two, six)), 1, 0);
  ir_ref seed = ir_scalar_int(g, TT_U64, 1);
  cr_expect_eq(ir_at(g, ir_random(g, seed, seed, S(4), 0))->op, IR_random);
}

Test(graph, folding_works_where_a_block_of_rows_ends) {
  for (int i = 0; g->n_nodes < 5 * IR_BLOCK; i++) {
    ir_ref r = ir_ew1(g, IR_neg, ir_scalar(g, TT_F64, i + 0.5));
    cr_assert_float_eq(value(r), -(i + 0.5), 0, "%d", i);
  }
  cr_expect_eq(g->error.status, TT_OK);
}

Test(graph, mistakes_have_three_parts) {
  at("src/model.c", 12, NULL);
  ir_ref h = ir_ew1(g, IR_relu, f32("x", S(32, 128)));
  ir_name(g, h, "h1");
  ir_ref w = ir_param(g, "w2", TT_F32, S(10, 128), true);
  at("src/model.c", 15, "mlp/fc2");
  expect_mistake(ir_matmul(g, h, w, false, false, 1),
                 "error: matmul(%h1, %w2): inner sizes differ, 128 and 10\n  at model.c:15 in mlp/fc2: %h1 is f32[32,128] (relu, model.c:12), %w2 is f32[10,128]\n"
                 "  fix: %w2 looks transposed; pass tt_transpose(w2, 0, 1)");
  expect_mistake(ir_ew2(g, IR_add, h, w),
                 "error: add(%h1, %w2): shapes do not broadcast, 32 and 10 at axis -2\n  at model.c:15 in mlp/fc2: %h1 is f32[32,128] (relu, model.c:12), %w2 is f32[10,128]\n"
                 "  fix: sizes must be equal or 1, counted from the last axis: reshape one of them, or make the sizes equal");
  expect_mistake(ir_reduce(g, IR_sum, h, (int[]){2}, 1, false),
                 "error: sum(%h1): axis 2 of a value that has 2\n  at model.c:15 in mlp/fc2: %h1 is f32[32,128] (relu, model.c:12)\n  fix: axes go from -2 to 1");
  expect_mistake(ir_reshape(g, w, S(3, 400)),
                 "error: reshape(%w2): [10,128] has 1280 elements, [3,400] has 1200\n  at model.c:15 in mlp/fc2: %w2 is f32[10,128]\n  fix: sizes must multiply to 1280; one of them may be -1");
  expect_mistake(ir_ew2(g, IR_mul, w, ir_input(g, "n", TT_I64, S(128))),
                 "error: mul(%w2, %n): types differ, f32 and i64\n  at model.c:15 in mlp/fc2: %w2 is f32[10,128], %n is i64[128]\n  fix: cast one of them, say tt_cast(n, TT_F32)");
  expect_mistake(ir_param(g, "w2", TT_F32, S(1), true),
                 "error: param(): the name w2 is taken by the param of type f32[10,128]\n  at model.c:15 in mlp/fc2\n  fix: name one of them otherwise, or put them in different scopes");
  expect_mistake(ir_assign(g, w, h), "error: assign(%w2, %h1): shapes differ, [10,128] and [32,128]\n  at model.c:15 in mlp/fc2: %w2 is f32[10,128], %h1 is f32[32,128] (relu, model.c:12)\n"
                                     "  fix: broadcast the smaller one, or make both [10,128]");
}

Test(graph, the_first_mistake_stays_and_poison_flows_on) {
  ir_ref x = f32("x", S(2, 3)), bad = ir_transpose(g, x, 0, 5);
  cr_expect_eq(bad, 0);
  char first[2000];
  strcpy(first, g->error.message);
  cr_expect(strstr(first, "axis 5"), "%s", first);
  cr_expect_eq(ir_ew2(g, IR_add, bad, x), 0);
  cr_expect_eq(ir_reduce(g, IR_sum, bad, NULL, 0, false), 0);
  cr_expect_eq(ir_softmax(g, IR_softmax, bad, -1), 0);
  cr_expect_eq(ir_reshape(g, x, S(7)), 0);
  cr_expect_str_eq(g->error.message, first);
}

Test(graph, sizes_do_not_overflow) {
  ir_ref one = ir_input(g, "one", TT_F32, S(1));
  int64_t big = INT64_C(1) << 40;
  cr_expect_eq(ir_broadcast_to(g, one, S(big, big)), 0);
  cr_expect(strstr(g->error.message, "too many elements"), "%s", g->error.message);
  g->error.status = TT_OK;
  cr_expect_eq(ir_input(g, "wide", TT_F64, S(INT64_C(1) << 60)), 0, "2^63 bytes");
  g->error.status = TT_OK;
  cr_expect_eq(ir_pad(g, one, ir_scalar(g, TT_F32, 0), (int64_t[]){INT64_MAX}, (int64_t[]){INT64_MAX}, NULL), 0);
  g->error.status = TT_OK;
  cr_expect_neq(ir_input(g, "empty", TT_F64, S(big, 0, big)), 0);
}

Test(graph, shapes_of_windows_and_contractions) {
  ir_ref x = f32("x", S(8, 2, 3, 32, 30)), w = f32("w", S(2, 16, 3, 3, 5));
  tt_shape s = ir_shape(g, ir_conv(g, x, w, &(ir_conv_attrs){.stride = {2, 1}, .lo = {1, 0}, .hi = {1, 2}, .dilation = {1, 2}}));
  cr_expect(tt_shape_equal(&s, &S(8, 2, 16, 16, 24)));
  s = ir_shape(g, ir_conv(g, x, w, &(ir_conv_attrs){.x_dilation = {2, 1}, .split = 3}));
  cr_expect(tt_shape_equal(&s, &S(3, 8, 2, 16, 61, 26)));
  s = ir_shape(g, ir_matmul(g, f32("a", S(4, 6, 5)), f32("b", S(4, 6, 7)), true, false, 2));
  cr_expect(tt_shape_equal(&s, &S(2, 4, 5, 7)));
  ir_ref u = ir_unfold(g, f32("v", S(3, 10)), 1, 3, 2, 2);
  s = ir_shape(g, u);
  cr_expect(tt_shape_equal(&s, &S(3, 3, 3)));
  s = ir_shape(g, ir_fold(g, u, 1, 10, 2, 2));
  cr_expect(tt_shape_equal(&s, &S(3, 10)));
  cr_expect_eq(ir_fold(g, u, 1, 20, 2, 2), 0);
}

Test(graph, a_clone_is_the_same_and_a_rebuild_drops_what_is_dead) {
  ir_ref p = ir_param(g, "p", TT_F32, S(2), true), q = ir_param(g, "q", TT_F32, S(2), true), dead = ir_ew1(g, IR_exp, p);
  ir_ref c = ir_const(g, TT_F32, S(2), (float[]){1, 2}), sum = ir_ew2(g, IR_add, p, c);
  ir_name(g, sum, "sum");
  ir_assign(g, q, p);
  ir_assign(g, p, sum);
  ir_output_add(g, "y", sum);
  ir_graph *copy = ir_clone(g);
  cr_assert_not_null(copy);
  cr_expect_eq(copy->n_nodes, g->n_nodes);
  cr_expect_str_eq(ir_at(copy, sum)->name, "sum");
  cr_expect_eq(ir_at(copy, dead)->op, IR_exp);
  ir_graph *out = ir_graph_new("out");
  bool *live = ir_live(copy);
  ir_ref map[32] = {0};
  for (ir_ref r = 1; r < copy->n_nodes; r++)
    if (live[r]) map[r] = ir_rebuild(copy, out, r, map);
  ir_finish(copy, out, map);
  cr_expect_eq(out->n_nodes, g->n_nodes - 1);
  cr_expect_eq(out->n_effects, 2);
  cr_expect_eq(out->effects[0], map[g->effects[0]]);
  cr_expect_str_eq(out->outputs[0].name, "y");
  tt_error err = {0};
  cr_expect_eq(ir_verify(out, "rebuild", &err), TT_OK, "%s", err.message);
  cr_expect_eq(ir_assign(g, p, p), 0, "a second next value");
  free(live);
  ir_graph_free(copy);
  ir_graph_free(out);
}

static tt_status verify(const char *part) {
  tt_error err = {0};
  tt_status status = ir_verify(g, "memory", &err);
  cr_expect(strstr(err.message, part), "%s", err.message);
  return status;
}

Test(graph, the_verifier_sees_what_emit_cannot) {
  ir_ref x = f32("x", S(4)), p = ir_param(g, "p", TT_F32, S(4), true), r[4];
  for (int i = 0; i < 4; i++) {
    g->at_region = ir_kernel_add(g, "k");
    r[i] = ir_ew1(g, i % 2 ? IR_exp : IR_neg, i ? r[i - 1] : x);
  }
  g->at_region = 0;
  ir_assign(g, p, r[3]);
  g->arena_bytes = 32;
  ir_at(g, r[0])->place = 0;
  ir_at(g, r[1])->place = 16;
  ir_at(g, r[2])->place = 0;
  cr_expect_eq(verify(""), TT_OK);
  ir_at(g, r[1])->place = 0;
  cr_expect_eq(verify(""), TT_OK, "in place, the reader being the last use");
  ir_at(g, r[1])->place = 8;
  cr_expect_eq(verify("shares bytes"), TT_INTERNAL);
  ir_at(g, r[1])->place = 24;
  cr_expect_eq(verify("of an arena of 32"), TT_INTERNAL);
  ir_at(g, r[1])->place = 16;
  ir_kernel_plan(g, 4, "inplace", (int64_t[]){r[3], p}, 2);
  cr_expect_eq(verify(""), TT_OK);
  ir_output_add(g, "old", p);
  cr_expect_eq(verify("read after its next value"), TT_INTERNAL);
  ir_at(g, r[3])->dim[0] = 5;
  cr_expect_eq(verify("it says f32[5], its operands give f32[4]"), TT_INTERNAL);
  ir_at(g, r[3])->dim[0] = 4;
  ir_at(g, r[3])->region = 1;
  cr_expect_eq(verify("not one run"), TT_INTERNAL);
  tt_fail(&g->error, TT_INVALID, "seen");
}

Test(types, half_floats_round_to_nearest_even) {
  for (uint32_t h = 0; h < 65536; h++) {
    tt_f16 x = {(uint16_t)h};
    tt_bf16 b = {(uint16_t)h};
    float f = tt_f16_to_f32(x);
    if (isnan(f)) cr_assert(isnan(tt_f16_to_f32(tt_f32_to_f16(f))));
    else cr_assert_eq(tt_f32_to_f16(f).bits, h, "%x", h);
    if (!isnan(tt_bf16_to_f32(b))) cr_assert_eq(tt_f32_to_bf16(tt_bf16_to_f32(b)).bits, h);
  }
  cr_expect_eq(tt_f32_to_f16(65519.996f).bits, 0x7bff);
  cr_expect_eq(tt_f32_to_f16(65520).bits, 0x7c00);
  cr_expect_eq(tt_f32_to_f16(0x1p-25f).bits, 0, "a tie, to even");
  cr_expect_eq(tt_f32_to_f16(0x1.8p-25f).bits, 1);
  cr_expect_eq(tt_f32_to_f16(1 + 0x1p-11f).bits, 0x3c00);
  cr_expect_eq(tt_f32_to_f16(1 + 0x3p-11f).bits, 0x3c02);
  cr_expect_eq(tt_f32_to_bf16(1 + 0x1p-8f).bits, 0x3f80);
  cr_expect_eq(tt_f32_to_bf16(1 + 0x3p-8f).bits, 0x3f82);
}

/* The known answers of Random123's kat_vectors for philox4x32 of ten and seven rounds. */
Test(types, philox_known_answers) {
  uint32_t out[4];
  tt_philox(10, (uint32_t[4]){0}, (uint32_t[2]){0}, out);
  cr_expect_arr_eq(out, ((uint32_t[]){0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}), sizeof out);
  tt_philox(10, (uint32_t[4]){0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, (uint32_t[2]){0xa4093822, 0x299f31d0}, out);
  cr_expect_arr_eq(out, ((uint32_t[]){0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}), sizeof out);
  tt_philox(7, (uint32_t[4]){0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, (uint32_t[2]){0xa4093822, 0x299f31d0}, out);
  cr_expect_arr_eq(out, ((uint32_t[]){0x4dfccaba, 0x190a87f0, 0xc47362ba, 0xb6b5242a}), sizeof out);
  tt_philox(10, (uint32_t[4]){3, 0, 9, 5}, (uint32_t[2]){7, 1}, out);
  for (int q = 0; q < 4; q++) cr_expect_eq(tt_random_word((UINT64_C(1) << 32) + 7, 9, 5, (uint64_t)(q * 16 + 3)), out[q]);
  tt_philox(7, (uint32_t[4]){3, 0, 9, 5}, (uint32_t[2]){7, 1}, out);
  for (int half = 0; half < 8; half++)      /* elements of counter 3, the fourth of its block */
    cr_expect_eq(tt_random_half((UINT64_C(1) << 32) + 7, 9, 5, (uint64_t)(half / 4 * 16 + 12 + half % 4)), (uint16_t)(out[half / 4 * 2 + (half % 4 < 2)] >> half % 2 * 16));
}

Test(graph, a_name_belongs_to_the_input) {
  ir_ref x = f32("x", S(2)), y = ir_ew1(g, IR_exp, x), z = ir_ew1(g, IR_neg, x);
  ir_name(g, y, "y");
  ir_name(g, z, "y");
  cr_expect_str_eq(ir_at(g, y)->name, "y");
  cr_expect_null(ir_at(g, z)->name);
  ir_ref late = f32("y", S(3));
  cr_expect_str_eq(ir_at(g, late)->name, "y");
  cr_expect_null(ir_at(g, y)->name);
  cr_expect_eq(ir_find(g, "y"), late);
}
